//! Jobs, clusters, devices, logs: asking and telling.

use std::path::Path;

use atoll_api::http::JobView;
use atoll_domain::id::{ClusterId, JobId};
use atoll_domain::job::JobState;

use crate::exit::{Exit, Failure, of_job};
use crate::output::{length, plain, table};
use crate::session::{Session, now};
use crate::watch;

/// `atoll gpu list`.
///
/// # Errors
/// [`Failure`] when the server cannot be asked.
pub async fn gpus(session: &Session) -> Result<Exit, Failure> {
    let models = session.client.devices().await?;
    session.out.result(&models, || {
        if models.is_empty() {
            return "no devices are offered; `atoll worker join` adds a machine, `atoll dev` starts a local network"
                .into();
        }
        let rows: Vec<Vec<String>> = models
            .iter()
            .map(|row| {
                let ask = row.ask_min.map_or_else(|| "-".to_owned(), |ask| ask.to_string());
                vec![plain(&row.model), plain(&row.class), row.devices.to_string(), row.devices_free.to_string(), ask]
            })
            .collect();
        table(&["MODEL", "CLASS", "DEVICES", "FREE", "FROM"], &rows)
    })?;
    Ok(Exit::Ok)
}

/// `atoll job list`.
///
/// # Errors
/// [`Failure`] when the server cannot be asked.
pub async fn list(session: &Session) -> Result<Exit, Failure> {
    let jobs = session.client.jobs().await?;
    session.out.result(&jobs, || {
        if jobs.is_empty() {
            return "no jobs yet; `atoll job submit FOLDER --max-price USD` runs one".into();
        }
        let rows: Vec<Vec<String>> = jobs
            .iter()
            .map(|job| {
                let age = length(now().since(job.created).as_secs());
                let step = job.step.map_or_else(|| "-".to_owned(), |step| step.to_string());
                let state = job.state.word().to_owned();
                vec![job.job.to_string(), plain(&job.name), state, job.devices.to_string(), step, format!("{age} ago")]
            })
            .collect();
        table(&["JOB", "NAME", "STATE", "DEVICES", "STEP", "SUBMITTED"], &rows)
    })?;
    Ok(Exit::Ok)
}

/// `atoll job show JOB`.
///
/// # Errors
/// [`Failure`] when the server cannot be asked or knows no such job.
pub async fn show(session: &Session, job: JobId) -> Result<Exit, Failure> {
    let job = session.client.job(job).await?;
    session.out.result(&job, || job_text(&job))?;
    Ok(Exit::Ok)
}

fn job_text(job: &JobView) -> String {
    let mut lines = vec![
        format!("job       {}  {}", job.job, plain(&job.name)),
        format!(
            "state     {}{}",
            job.state.word(),
            if job.reason.is_empty() { String::new() } else { format!("  ({})", plain(&job.reason)) }
        ),
        format!("submitted {}  ({} ago)", job.created, length(now().since(job.created).as_secs())),
        format!("order     {}", job.order),
        format!("cluster   {}", job.cluster),
        format!("devices   {}, attempt {}", job.devices, job.attempt),
        format!("escrow    {}", job.escrow),
    ];
    if let Some(step) = job.step {
        lines.push(format!("step      {step}"));
    }
    if let Some(step) = job.resumed_from_step {
        lines.push(format!("resumed   from step {step}"));
    }
    lines.extend(job.pods.iter().map(|pod| format!("  {}", watch::pod_line(pod))));
    lines.extend(job.refusals.iter().map(|refused| format!("  {}: {}", refused.worker, plain(&refused.reason))));
    lines.join("\n")
}

/// `atoll job events JOB`: one page of what happened.
///
/// # Errors
/// [`Failure`] when the server cannot be asked or knows no such job.
pub async fn events(session: &Session, job: JobId, after: u64, wait_s: u32) -> Result<Exit, Failure> {
    let view = session.client.job(job).await?;
    let page = session.client.events(job, after, wait_s).await?;
    session.out.result(&page, || {
        let lines: Vec<String> = page
            .events
            .iter()
            .filter_map(|event| Some(format!("{:>5}  {}", event.seq, watch::event_line(&view, event)?)))
            .collect();
        if lines.is_empty() {
            format!("nothing after {after}; the job is {}", page.state.word())
        } else {
            lines.join("\n")
        }
    })?;
    Ok(Exit::Ok)
}

/// `atoll job watch JOB`.
///
/// # Errors
/// [`Failure`] as [`watch::follow`].
pub async fn watch(session: &Session, job: JobId) -> Result<Exit, Failure> {
    let ended = watch::follow(session, job).await?;
    watch::show_end(session.out, &ended)?;
    Ok(of_job(ended.state))
}

/// `atoll job stop JOB`: signed by the wallet, since it ends leases. The same key for every try of one job.
///
/// # Errors
/// [`Failure`] when the server refuses.
pub async fn stop(session: &Session, job: JobId, budget: Option<&Path>) -> Result<Exit, Failure> {
    let wallet = session.buyer(budget).await?.signs;
    session.network().await?;
    let key = format!("stop-{job}");
    let stopped = session.client.stop(job, &wallet.seal(&key)?).await?;
    session.out.result(&stopped, || match stopped.state {
        state if state.is_final() => format!("{job} is {}", state.word()),
        JobState::Settling => {
            format!("{job} stops; what was served is paid, the rest refunded. `atoll job watch {job}` shows it")
        }
        state => format!("{job} will stop (now {}). `atoll job watch {job}` shows it", state.word()),
    })?;
    Ok(Exit::Ok)
}

/// `atoll logs JOB`: the job's own output, as bytes.
///
/// # Errors
/// [`Failure`] when the server cannot be asked. With `follow`, a server that goes away is waited for by asking again from
/// the byte after the last one seen.
pub async fn logs(session: &Session, job: JobId, follow: bool) -> Result<Exit, Failure> {
    let mut from = 0_u64;
    loop {
        let mut answer = session.client.logs(job, from, follow).await?;
        let cut = loop {
            match answer.chunk().await {
                Ok(Some(bytes)) => {
                    from += bytes.len() as u64;
                    session.out.raw(&bytes)?;
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        match cut {
            None => return Ok(Exit::Ok),
            // A silence longer than the client waits, or a server that restarts: the job may still say something.
            Some(_) if follow => session.client.job(job).await.map(drop)?,
            Some(error) => {
                let message = format!("the output broke off after {from} bytes: {error}; run the command again");
                return Err(Failure::new(Exit::Unreachable, "logs_cut", message));
            }
        }
    }
}

/// `atoll cluster list`: the clusters of the caller's jobs.
///
/// # Errors
/// [`Failure`] when the server cannot be asked.
pub async fn clusters(session: &Session) -> Result<Exit, Failure> {
    let jobs = session.client.jobs().await?;
    session.out.result(&jobs, || {
        if jobs.is_empty() {
            return "no clusters yet; a job brings its own: `atoll job submit FOLDER`".into();
        }
        let rows: Vec<Vec<String>> = jobs
            .iter()
            .map(|job| {
                let live = job.pods.iter().filter(|pod| !pod.state.is_over()).count();
                vec![job.cluster.to_string(), job.job.to_string(), job.state.word().to_owned(), live.to_string()]
            })
            .collect();
        table(&["CLUSTER", "JOB", "STATE", "PODS"], &rows)
    })?;
    Ok(Exit::Ok)
}

/// `atoll cluster show CLUSTER`: its pods, with their addresses in the overlay.
///
/// # Errors
/// [`Failure`] when no job of the caller has this cluster.
pub async fn cluster(session: &Session, cluster: ClusterId) -> Result<Exit, Failure> {
    let jobs = session.client.jobs().await?;
    let Some(job) = jobs.iter().find(|job| job.cluster == cluster) else {
        let message = format!("you have no cluster {cluster}; `atoll cluster list` shows yours");
        return Err(Failure::new(Exit::Refused, "not_found", message));
    };
    session.out.result(job, || {
        let pods: Vec<String> = job.pods.iter().map(|pod| format!("  {}", watch::pod_line(pod))).collect();
        format!("{cluster}  ray  of {}  {}\n{}", job.job, job.state.word(), pods.join("\n"))
    })?;
    Ok(Exit::Ok)
}
