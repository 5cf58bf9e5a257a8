//! Blobs, checkpoints and kept output, behind the object store (a local folder by default).
//!
//! Everything has an owner in its path: `users/<user>/blobs/<sha256>` for what a user uploaded,
//! `jobs/<job>/blobs/<sha256>` for what a job's pods wrote, `jobs/<job>/checkpoints/<attempt>-<step>.json` for manifests,
//! `jobs/<job>/log/<offset>` for output. A blob is visible only after its digest was checked; a manifest is one atomic
//! write whose name carries the attempt, so a late one of an older attempt never hides a newer one. Who may do what is
//! decided by the callers.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::pod::Manifest;
use atoll_domain::id::{JobId, UserId};
use atoll_domain::key::Digest;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use sha2::{Digest as _, Sha256};

/// Bytes of one part of an upload: S3's smallest is 5 MiB.
const PART_BYTES: usize = 5 << 20;
/// The longest silence while bytes are uploaded.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(30);
/// The most objects one job's pods may write (blobs and manifests), or one user upload.
pub const OBJECTS_MAX: u64 = 100_000;
/// The most bytes of them together: 64 GiB.
pub const BYTES_MAX: u64 = 64 << 30;
/// The most output kept of one job, in bytes: 256 MiB.
pub const LOG_BYTES_MAX: u64 = 256 << 20;
/// The largest note: the leaves of an epoch, 250 bytes each, of the 2^17 leases that one operator has at most.
const NOTE_BYTES_MAX: u64 = 32 << 20;
/// The most bytes that one [`Objects::read_log`] gives.
const LOG_READ_MAX: u64 = 1 << 20;

/// Why an object was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Other bytes than promised. Nothing was kept.
    #[error(
        "the bytes sent have digest {got}, not {expected}: they were changed on the way, or belong to another name; send them again"
    )]
    Digest {
        /// Promised.
        expected: Digest,
        /// Sent.
        got: Digest,
    },
    /// Too many bytes. Nothing was kept.
    #[error("more than {max} bytes: split it into several blobs")]
    TooLarge {
        /// The most that is taken.
        max: u64,
    },
    /// The job or the user has used up its room.
    #[error(
        "the room in the object store is used up ({what}): write fewer or smaller checkpoints, or ask the operator"
    )]
    Quota {
        /// Which bound.
        what: &'static str,
    },
    /// The sender stopped. Nothing was kept.
    #[error("the upload broke off ({0}): send it again")]
    CutOff(String),
    /// Somebody else wrote another content under this name first.
    #[error("{0} is there already with another content")]
    Conflict(String),
    /// The engine failed.
    #[error("the object store failed: {0}")]
    Engine(#[from] object_store::Error),
    /// A stored object that is not what was written.
    #[error("a stored object cannot be read: {0}")]
    Corrupt(String),
}

impl ObjectError {
    /// Whether there is no room for what was to be kept. Nothing of it is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// The result of any operation here.
pub type Result<T> = std::result::Result<T, ObjectError>;

/// Whose a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Uploaded by a user.
    User(UserId),
    /// Written by a job's pods.
    Job(JobId),
}

/// The object store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Objects {
    engine: Arc<dyn ObjectStore>,
    /// Room used per owner: objects and bytes, counted once and then kept.
    used: Arc<Mutex<BTreeMap<Owner, (u64, u64)>>>,
    /// Output per job: chunk lengths by offset, as far as this node knows.
    logs: Arc<Mutex<BTreeMap<JobId, BTreeMap<u64, u64>>>>,
}

/// A blob to be sent on.
pub struct Blob {
    /// Its length.
    pub bytes: u64,
    /// Its content.
    pub content: futures_util::stream::BoxStream<'static, object_store::Result<Bytes>>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.bytes)
    }
}

impl Objects {
    /// Keeps objects in a folder, which is made when it is not there.
    ///
    /// # Errors
    /// [`ObjectError::Engine`] when the folder cannot be used.
    pub fn open(folder: &FsPath) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt as _;
                // Tenants' data is nobody's but the operator's, whatever the umask says.
                std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            })
            .map_err(|error| object_store::Error::Generic { store: "folder", source: Box::new(error) })?;
        let engine = object_store::local::LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(false);
        Ok(Self::over(Arc::new(engine)))
    }

    /// Keeps objects in an engine of the caller's. All nodes of an operator must have the same one.
    #[must_use]
    pub fn over(engine: Arc<dyn ObjectStore>) -> Self {
        Self { engine, used: Arc::default(), logs: Arc::default() }
    }

    fn blob_path(owner: Owner, sha256: &Digest) -> Path {
        match owner {
            Owner::User(user) => Path::from(format!("users/{user}/blobs/{sha256}")),
            Owner::Job(job) => Path::from(format!("jobs/{job}/blobs/{sha256}")),
        }
    }

    /// Keeps bytes under their digest. Nothing is visible unless all arrived and the digest is right; what is there
    /// already stays.
    ///
    /// # Errors
    /// [`ObjectError::Digest`], [`ObjectError::TooLarge`], [`ObjectError::CutOff`], [`ObjectError::Quota`].
    pub async fn put_blob<S, E>(&self, owner: Owner, sha256: Digest, bytes_max: u64, content: S) -> Result<()>
    where
        S: Stream<Item = std::result::Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let mut room = self.room(owner).await?;
        let path = Self::blob_path(owner, &sha256);
        let known = self.blob_bytes(owner, &sha256).await?.is_some();
        let mut upload = self.engine.put_multipart(&path).await?;
        match receive(&mut *upload, sha256, bytes_max, content, &mut room).await {
            Ok(()) => {
                upload.complete().await?;
                if !known {
                    room.keep();
                }
                Ok(())
            }
            Err(error) => {
                if let Err(left) = upload.abort().await {
                    tracing::warn!(%path, error = %left, "a broken upload could not be cleaned up");
                }
                Err(error)
            }
        }
    }

    /// Room for one object of an owner; it grows as bytes come, so that many uploads at once share one bound.
    async fn room(&self, owner: Owner) -> Result<Room> {
        let counted = lock(&self.used).contains_key(&owner);
        if !counted {
            let folders = match owner {
                Owner::User(user) => vec![format!("users/{user}/blobs")],
                Owner::Job(job) => vec![format!("jobs/{job}/blobs"), format!("jobs/{job}/checkpoints")],
            };
            let mut used = (0_u64, 0_u64);
            for folder in folders {
                let mut listed = self.engine.list(Some(&Path::from(folder)));
                while let Some(object) = listed.try_next().await? {
                    used = (used.0 + 1, used.1.saturating_add(object.size));
                }
            }
            lock(&self.used).entry(owner).or_insert(used);
        }
        let mut all = lock(&self.used);
        let used = all.entry(owner).or_default();
        if used.0 >= OBJECTS_MAX {
            return Err(ObjectError::Quota { what: "100,000 objects" });
        }
        used.0 += 1;
        Ok(Room { used: Arc::clone(&self.used), owner, bytes: 0, kept: false })
    }

    /// Length of a blob; none when it is not there.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub async fn blob_bytes(&self, owner: Owner, sha256: &Digest) -> Result<Option<u64>> {
        found(self.engine.head(&Self::blob_path(owner, sha256)).await).map(|meta| meta.map(|meta| meta.size))
    }

    /// A blob; none when it is not there.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub async fn blob(&self, owner: Owner, sha256: &Digest) -> Result<Option<Blob>> {
        let got = found(self.engine.get(&Self::blob_path(owner, sha256)).await)?;
        Ok(got.map(|got| Blob { bytes: got.meta.size, content: got.into_stream() }))
    }

    /// Keeps a manifest. The caller has checked that its blobs are there and that its attempt is the current one.
    ///
    /// # Errors
    /// [`ObjectError::Conflict`] when the same attempt wrote another manifest for this step; [`ObjectError::Quota`].
    pub async fn put_manifest(&self, job: JobId, manifest: &Manifest) -> Result<()> {
        let bytes = serde_json::to_vec(manifest).map_err(|error| ObjectError::Corrupt(error.to_string()))?;
        let path = Path::from(format!("jobs/{job}/checkpoints/{:010}-{:020}.json", manifest.attempt, manifest.step));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let mut room = self.room(Owner::Job(job)).await?;
        room.grow(bytes.len() as u64)?;
        match self.engine.put_opts(&path, PutPayload::from(bytes.clone()), options).await {
            Ok(_) => {
                room.keep();
                Ok(())
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = self.engine.get(&path).await?.bytes().await?;
                let same = there == bytes;
                if same {
                    Ok(())
                } else {
                    Err(ObjectError::Conflict(format!("the checkpoint of step {}", manifest.step)))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The newest manifest: the highest step of the newest attempt that wrote one.
    ///
    /// # Errors
    /// [`ObjectError::Corrupt`] when it cannot be read.
    pub async fn latest_manifest(&self, job: JobId) -> Result<Option<Manifest>> {
        let prefix = Path::from(format!("jobs/{job}/checkpoints"));
        let listed: Vec<_> = self.engine.list(Some(&prefix)).try_collect().await?;
        // Names are zero-padded: their order is that of (attempt, step).
        let Some(newest) = listed.into_iter().map(|object| object.location).max() else { return Ok(None) };
        let bytes = self.engine.get(&newest).await?.bytes().await?;
        let manifest =
            serde_json::from_slice(&bytes).map_err(|error| ObjectError::Corrupt(format!("{newest}: {error}")))?;
        Ok(Some(manifest))
    }

    /// Appends to a job's kept output what starts at offset `at`, and gives the new length. What is kept already is
    /// left out, so that a repeated append does no harm; what lies beyond [`LOG_BYTES_MAX`] is dropped. Of two writers
    /// that append at the same offset one gets [`ObjectError::Conflict`].
    ///
    /// # Errors
    /// [`ObjectError::Corrupt`] when `at` lies beyond the end; otherwise the engine's.
    pub async fn append_log(&self, job: JobId, at: u64, bytes: impl AsRef<[u8]> + Send) -> Result<u64> {
        let end = self.log_bytes(job).await?;
        if at > end && end < LOG_BYTES_MAX {
            return Err(ObjectError::Corrupt(format!("output of {job} ends at {end}, and more was to follow at {at}")));
        }
        let bytes = bytes.as_ref();
        let kept = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        let room = usize::try_from(LOG_BYTES_MAX.saturating_sub(end)).unwrap_or(usize::MAX);
        let bytes = Bytes::copy_from_slice(&bytes[kept..][..(bytes.len() - kept).min(room)]);
        if bytes.is_empty() {
            return Ok(end);
        }
        let path = Path::from(format!("jobs/{job}/log/{end:020}"));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let length = bytes.len() as u64;
        match self.engine.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => {
                lock(&self.logs).entry(job).or_default().insert(end, length);
                Ok(end + length)
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                lock(&self.logs).remove(&job);
                Err(ObjectError::Conflict(format!("output at {end}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Length of a job's kept output, in bytes.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub async fn log_bytes(&self, job: JobId) -> Result<u64> {
        if let Some(chunks) = lock(&self.logs).get(&job) {
            return Ok(end_of(chunks));
        }
        self.list_log(job).await
    }

    async fn list_log(&self, job: JobId) -> Result<u64> {
        let prefix = Path::from(format!("jobs/{job}/log"));
        let mut listed = self.engine.list(Some(&prefix));
        let mut chunks = BTreeMap::new();
        while let Some(object) = listed.try_next().await? {
            let offset = object.location.filename().and_then(|name| name.parse::<u64>().ok());
            let offset = offset.ok_or_else(|| ObjectError::Corrupt(object.location.to_string()))?;
            chunks.insert(offset, object.size);
        }
        let mut logs = lock(&self.logs);
        let known = logs.entry(job).or_default();
        known.extend(chunks);
        Ok(end_of(known))
    }

    /// A job's kept output from an offset: at most 1 MiB, empty when there is no more yet.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub async fn read_log(&self, job: JobId, from: u64) -> Result<Bytes> {
        if self.log_bytes(job).await? <= from && self.list_log(job).await? <= from {
            return Ok(Bytes::new());
        }
        let chunk = lock(&self.logs)
            .get(&job)
            .and_then(|chunks| chunks.range(..=from).next_back().map(|(at, len)| (*at, *len)));
        let Some((at, length)) = chunk.filter(|(at, length)| at + length > from) else {
            return Err(ObjectError::Corrupt(format!("output of {job} has a hole at {from}")));
        };
        let (start, end) = (from - at, length.min(from - at + LOG_READ_MAX));
        let path = Path::from(format!("jobs/{job}/log/{at:020}"));
        Ok(self.engine.get_range(&path, start..end).await?)
    }

    /// Writes a note of the operator's own, whole or not at all. With `once` the first one stays; false when another
    /// content is there.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub(crate) async fn put_note(&self, path: &str, text: String, once: bool) -> Result<bool> {
        let mode = if once { PutMode::Create } else { PutMode::Overwrite };
        let options = PutOptions { mode, ..PutOptions::default() };
        let bytes = Bytes::from(text);
        match self.engine.put_opts(&Path::from(path), PutPayload::from_bytes(bytes.clone()), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.engine.get(&Path::from(path)).await?.bytes().await? == bytes)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A note; none when it is not there.
    ///
    /// # Errors
    /// [`ObjectError::Corrupt`] when it is longer than any note or no text.
    pub(crate) async fn note(&self, path: &str) -> Result<Option<String>> {
        let Some(got) = found(self.engine.get(&Path::from(path)).await)? else { return Ok(None) };
        if got.meta.size > NOTE_BYTES_MAX {
            return Err(ObjectError::Corrupt(format!("{path} has {} bytes", got.meta.size)));
        }
        let bytes = got.bytes().await?;
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| ObjectError::Corrupt(format!("{path} is no text")))?;
        Ok(Some(text))
    }

    /// The paths of all notes below a folder, in order.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub(crate) async fn notes(&self, folder: &str) -> Result<Vec<String>> {
        let listed: Vec<_> = self.engine.list(Some(&Path::from(folder))).try_collect().await?;
        let mut paths: Vec<String> = listed.into_iter().map(|object| object.location.to_string()).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// What lies directly in a folder: the names of its own folders, in order.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let listed = self.engine.list_with_delimiter(Some(&Path::from(folder))).await?;
        let name = |path: Path| path.filename().map(str::to_owned);
        let mut names: Vec<String> = listed.common_prefixes.into_iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Makes a blob of one owner another's too. One that is not there stays away.
    ///
    /// # Errors
    /// [`ObjectError::Engine`].
    pub(crate) async fn share_blob(&self, from: Owner, to: Owner, sha256: &Digest) -> Result<()> {
        let copied = self.engine.copy(&Self::blob_path(from, sha256), &Self::blob_path(to, sha256)).await;
        found(copied).map(drop)
    }
}

/// Room that an object takes in its owner's share; given back unless it is kept.
#[derive(Debug)]
struct Room {
    used: Arc<Mutex<BTreeMap<Owner, (u64, u64)>>>,
    owner: Owner,
    bytes: u64,
    kept: bool,
}

impl Room {
    fn grow(&mut self, bytes: u64) -> Result<()> {
        let mut all = lock(&self.used);
        let used = all.entry(self.owner).or_default();
        if used.1.saturating_add(bytes) > BYTES_MAX {
            return Err(ObjectError::Quota { what: "64 GiB" });
        }
        used.1 += bytes;
        self.bytes += bytes;
        Ok(())
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Some(used) = lock(&self.used).get_mut(&self.owner) {
            *used = (used.0.saturating_sub(1), used.1.saturating_sub(self.bytes));
        }
    }
}

fn end_of(chunks: &BTreeMap<u64, u64>) -> u64 {
    chunks.last_key_value().map_or(0, |(at, length)| at + length)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found<T>(result: object_store::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Uploads parts as bytes come, unless they are too many, too slow or the wrong ones.
async fn receive<S, E>(
    upload: &mut dyn MultipartUpload,
    expected: Digest,
    bytes_max: u64,
    mut content: S,
    room: &mut Room,
) -> Result<()>
where
    S: Stream<Item = std::result::Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Display,
{
    let (mut hash, mut part, mut total) = (Sha256::new(), BytesMut::new(), 0_u64);
    loop {
        let next = tokio::time::timeout(UPLOAD_SILENCE_MAX, content.next()).await;
        let Some(bytes) = next.map_err(|_| ObjectError::CutOff("nothing came for 30 s".into()))? else { break };
        let bytes = bytes.map_err(|error| ObjectError::CutOff(error.to_string()))?;
        total += bytes.len() as u64;
        if total > bytes_max {
            return Err(ObjectError::TooLarge { max: bytes_max });
        }
        room.grow(bytes.len() as u64)?;
        hash.update(&bytes);
        part.extend_from_slice(&bytes);
        if part.len() >= PART_BYTES {
            upload.put_part(PutPayload::from_bytes(part.split().freeze())).await?;
        }
    }
    let got = Digest(hash.finalize().into());
    if got != expected {
        return Err(ObjectError::Digest { expected, got });
    }
    upload.put_part(PutPayload::from_bytes(part.freeze())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        (folder, objects)
    }

    fn of(parts: &[&[u8]]) -> impl Stream<Item = std::result::Result<Bytes, String>> + Send + Unpin + use<> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        futures_util::stream::iter(parts)
    }

    fn job(n: u8) -> JobId {
        JobId::from_random([n; 16])
    }

    async fn read(objects: &Objects, owner: Owner, sha256: &Digest) -> Option<Vec<u8>> {
        let blob = objects.blob(owner, sha256).await.unwrap()?;
        let bytes: Vec<Bytes> = blob.content.try_collect().await.unwrap();
        Some(bytes.concat())
    }

    fn files(folder: &FsPath) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
    }

    #[tokio::test]
    async fn a_blob_is_its_owner_s_and_its_digest_s_or_nothing() {
        let (folder, objects) = store();
        let (mine, other) = (Owner::Job(job(1)), Owner::Job(job(2)));
        let sha256 = Digest::of(b"hello world");
        let wrong = objects.put_blob(mine, sha256, 100, of(&[b"hello ", b"w0rld"])).await;
        assert!(matches!(wrong, Err(ObjectError::Digest { .. })));
        let large = objects.put_blob(mine, sha256, 5, of(&[b"hello ", b"world"])).await;
        assert!(matches!(large, Err(ObjectError::TooLarge { max: 5 })));
        let broken = [Ok(Bytes::from_static(b"hello ")), Err("reset")];
        let broken = objects.put_blob(mine, sha256, 100, futures_util::stream::iter(broken)).await;
        assert!(matches!(broken, Err(ObjectError::CutOff(_))));
        assert_eq!(files(folder.path()), 0, "what was refused left something behind");
        for _ in 0..2 {
            objects.put_blob(mine, sha256, 100, of(&[b"hello ", b"world"])).await.unwrap();
        }
        assert_eq!(read(&objects, mine, &sha256).await.unwrap(), b"hello world");
        assert_eq!(read(&objects, other, &sha256).await, None);
        assert_eq!(files(folder.path()), 1);
        let big = vec![7_u8; PART_BYTES + 3];
        objects.put_blob(mine, Digest::of(&big), 1 << 30, of(&[&big[..PART_BYTES], &big[PART_BYTES..]])).await.unwrap();
        assert_eq!(read(&objects, mine, &Digest::of(&big)).await.unwrap(), big);
    }

    #[tokio::test]
    async fn the_newest_attempt_s_highest_step_is_the_latest() {
        let (_folder, objects) = store();
        let manifest =
            |attempt, step| Manifest { step, epoch: 1, attempt, weights_sha256: Digest::of(b"w"), files: vec![] };
        assert_eq!(objects.latest_manifest(job(1)).await.unwrap(), None);
        for (attempt, step) in [(1, 9), (1, 10), (2, 2), (1, 100)] {
            objects.put_manifest(job(1), &manifest(attempt, step)).await.unwrap();
        }
        assert_eq!(objects.latest_manifest(job(1)).await.unwrap(), Some(manifest(2, 2)));
        objects.put_manifest(job(1), &manifest(2, 2)).await.unwrap();
        let other = Manifest { epoch: 7, ..manifest(2, 2) };
        assert!(matches!(objects.put_manifest(job(1), &other).await, Err(ObjectError::Conflict(_))));
        assert_eq!(objects.latest_manifest(job(2)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn room_is_shared_by_uploads_at_once_and_manifests_take_some() {
        let (folder, objects) = store();
        let owners = [Owner::Job(job(1)), Owner::User(UserId::from_random([1; 16]))];
        let used = |objects: &Objects, owner| lock(&objects.used).get(&owner).copied();
        for owner in owners {
            let (mut one, mut two) = (objects.room(owner).await.unwrap(), objects.room(owner).await.unwrap());
            one.grow(BYTES_MAX - 5).unwrap();
            assert!(matches!(two.grow(6), Err(ObjectError::Quota { .. })));
            drop(one);
            two.grow(6).unwrap();
            assert_eq!(used(&objects, owner), Some((1, 6)));
            drop(two);
            assert_eq!(used(&objects, owner), Some((0, 0)));
            let wrong = objects.put_blob(owner, Digest::of(b"x"), 100, of(&[b"hello"])).await;
            assert!(matches!(wrong, Err(ObjectError::Digest { .. })));
            for _ in 0..2 {
                objects.put_blob(owner, Digest::of(b"hello"), 100, of(&[b"hello"])).await.unwrap();
            }
            assert_eq!(used(&objects, owner), Some((1, 5)), "what failed or was there takes no room");
        }
        let manifest = Manifest { step: 1, epoch: 1, attempt: 1, weights_sha256: Digest::of(b"w"), files: vec![] };
        objects.put_manifest(job(1), &manifest).await.unwrap();
        let counted = used(&objects, owners[0]).unwrap();
        assert!(counted.0 == 2 && counted.1 > 5, "{counted:?}");
        let again = Objects::open(folder.path()).unwrap();
        drop(again.room(owners[0]).await.unwrap());
        assert_eq!(used(&again, owners[0]), Some(counted), "a restart counts the same");
        lock(&again.used).insert(owners[0], (OBJECTS_MAX, 0));
        let more = Manifest { step: 2, ..manifest };
        assert!(matches!(again.put_manifest(job(1), &more).await, Err(ObjectError::Quota { .. })));
    }

    #[test]
    fn tenants_data_is_the_operator_s_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, _objects) = store();
        assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn output_is_read_from_any_offset_and_outlives_a_restart() {
        let (folder, objects) = store();
        assert_eq!(objects.read_log(job(1), 0).await.unwrap(), Bytes::new());
        assert_eq!(objects.append_log(job(1), 0, "one\n").await.unwrap(), 4);
        assert_eq!(objects.append_log(job(1), 2, "e\ntwo\n").await.unwrap(), 8);
        let again = Objects::open(folder.path()).unwrap();
        for objects in [&objects, &again] {
            assert_eq!(objects.read_log(job(1), 2).await.unwrap(), "e\n");
            assert_eq!(objects.read_log(job(1), 4).await.unwrap(), "two\n");
            assert_eq!(objects.read_log(job(1), 8).await.unwrap(), Bytes::new());
            assert_eq!(objects.log_bytes(job(1)).await.unwrap(), 8);
        }
        again.append_log(job(1), 8, "3").await.unwrap();
        assert_eq!(objects.read_log(job(1), 8).await.unwrap(), "3");
        assert!(matches!(objects.append_log(job(1), 10, "x").await, Err(ObjectError::Corrupt(_))));
    }

    #[tokio::test]
    async fn two_writers_do_not_overwrite_each_other() {
        let (folder, objects) = store();
        let other = Objects::open(folder.path()).unwrap();
        assert_eq!(other.log_bytes(job(1)).await.unwrap(), 0);
        objects.append_log(job(1), 0, "first").await.unwrap();
        assert!(matches!(other.append_log(job(1), 0, "x").await, Err(ObjectError::Conflict(_))));
        assert_eq!(other.append_log(job(1), 5, "second").await.unwrap(), 11);
    }
}
