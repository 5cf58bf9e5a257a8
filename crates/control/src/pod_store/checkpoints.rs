//! Checkpoints: a manifest is written last, when all that it names is there.

use std::collections::BTreeSet;

use atoll_api::pod::{BLOB_BYTES_MAX, FILES_MAX, Manifest};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{Door, Tenant};
use crate::error::{ApiError, Code};
use crate::http::extract;
use crate::objects::Owner;

/// The largest manifest, in bytes: 4,096 files with names of 128 bytes, digest and length.
const MANIFEST_BYTES_MAX: usize = 1 << 20;

pub(super) async fn latest(State(door): State<Door>, tenant: Tenant) -> Result<Json<Manifest>, ApiError> {
    let manifest = door.control.objects.latest_manifest(tenant.job.id).await?;
    manifest.map(Json).ok_or_else(|| ApiError::new(Code::NotFound, "this job has no complete checkpoint yet"))
}

pub(super) async fn put(
    State(door): State<Door>,
    tenant: Tenant,
    Path(step): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let manifest: Manifest = extract::json(&extract::body(body, MANIFEST_BYTES_MAX).await?)?;
    check(&manifest, &step)?;
    tenant.check_attempt(manifest.attempt)?;
    let objects = &door.control.objects;
    for file in &manifest.files {
        let there = objects.blob_bytes(Owner::Job(tenant.job.id), &file.sha256).await?;
        if there != Some(file.bytes) {
            let message = format!(
                "`{}` ({}, {} bytes) is not in the store: upload every file, then the manifest",
                file.name, file.sha256, file.bytes
            );
            return Err(ApiError::new(Code::BlobMissing, message));
        }
    }
    // The job may have gone on meanwhile. The manifest's name carries its attempt, so a late one hides no newer one.
    let now = door.control.store.job(tenant.job.id).await?.ok_or_else(|| ApiError::not_found("job"))?;
    let tenant = Tenant { job: now, ..tenant };
    tenant.check_attempt(manifest.attempt)?;
    objects.put_manifest(tenant.job.id, &manifest).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(manifest: &Manifest, step: &str) -> Result<(), ApiError> {
    let bad = |message: &str| Err(ApiError::new(Code::BadRequest, message));
    if step.parse() != Ok(manifest.step) {
        return bad("the manifest's step is not the path's");
    }
    if manifest.files.is_empty() || manifest.files.len() > FILES_MAX {
        return bad("a checkpoint has 1 to 4096 files");
    }
    let names: BTreeSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    if names.len() != manifest.files.len() || !names.iter().all(|name| plain(name)) {
        return bad(
            "file names must differ and have 1 to 128 letters, digits, `.`, `_`, `-`, `/`, no part starting with a point",
        );
    }
    if manifest.files.iter().any(|file| file.bytes > BLOB_BYTES_MAX) {
        return bad("a file of a checkpoint has at most 256 MiB");
    }
    Ok(())
}

fn plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.');
    (1..=128).contains(&name.len()) && name.bytes().all(fits) && name.split('/').all(part)
}
