//! `supervisor.sock`: one thread a connection, one request each.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use atoll_overlay::{SignedStatement, pump};
use nix::sys::socket::{getsockopt, sockopt};

use super::protocol::{Answer, LINE_BYTES_MAX, Request, State, Verdict};
use super::shared::{Command, Shared, lock, now, thread};
use super::spec::{AuthorisedKey, check_program};
use super::streams::{Place, STREAMS_MAX, connect_inside, splice};
use super::{output, usage};
use crate::runtime::door;

/// Requests at a time; streams are requests too.
const CONNECTIONS_MAX: usize = STREAMS_MAX + 32;

/// A caller that says nothing for this long is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Usage records in one answer: 3,000 of at most 330 bytes stay below a line's bound.
const RECORDS_MAX: usize = 3_000;

/// Longest `wait`.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Takes requests for ever.
pub fn serve(listener: &UnixListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        if !is_ours(&connection) {
            continue;
        }
        let Some(place) = Place::take(&shared.connections, CONNECTIONS_MAX) else { continue };
        let own = Arc::clone(shared);
        // No thread left: the connection closes and the caller tries again.
        let _ = thread("request", move || {
            // A caller that hung up in the middle is its own affair.
            let _ = answer(connection, &own);
            drop(place);
            own.changed.notify_all();
        });
    }
}

/// The supervisor's own user, or root. (In a pod nobody sees this socket; on the host, file modes hold too.)
fn is_ours(connection: &UnixStream) -> bool {
    let caller = getsockopt(connection, sockopt::PeerCredentials).map(|peer| peer.uid());
    caller.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

fn answer(connection: UnixStream, shared: &Shared) -> Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::with_capacity(4096, (&connection).take(LINE_BYTES_MAX as u64)).read_until(b'\n', &mut line)?;
    let request = match serde_json::from_slice(&line) {
        Ok(request) if line.ends_with(b"\n") => request,
        Ok(_) => return say(&connection, &refused(format!("a request is one line of at most {LINE_BYTES_MAX} bytes"))),
        Err(error) => return say(&connection, &refused(format!("not a request: {error}"))),
    };
    let reply = match request {
        Request::Status {} => Answer::Status(Box::new(shared.status())),
        Request::Roster { members, authorised } => roster(shared, &members, authorised),
        Request::Run { argv, env } => run(shared, argv, env),
        Request::Dial { port } => match dial(shared, port) {
            Ok(inside) => {
                say(&connection, &Answer::Done)?;
                splice(connection.into(), inside);
                return Ok(());
            }
            Err(error) => refused(format!("port {port} of the pod: {error}")),
        },
        Request::Output { offset, follow } => return send_output(&connection, shared, offset, follow),
        Request::Usage { after_seq } => match usage::read(&shared.dir, after_seq, RECORDS_MAX) {
            Ok(records) => Answer::Usage { records },
            Err(error) => refused(format!("the usage spool: {error}")),
        },
        Request::Extend { ends_at } => {
            shared.command(Command::Extend { ends_at });
            Answer::Done
        }
        Request::Stop { term_ms } => {
            shared.command(Command::Stop { term_ms });
            Answer::Done
        }
        Request::Wait { timeout_ms } => wait(shared, Duration::from_millis(timeout_ms)),
    };
    say(&connection, &reply)
}

fn say(mut connection: &UnixStream, answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    connection.write_all(&line)
}

fn refused(message: String) -> Answer {
    Answer::Refused { message }
}

fn run(shared: &Shared, argv: Option<Vec<String>>, env: std::collections::BTreeMap<String, String>) -> Answer {
    let program = argv.as_ref().unwrap_or(&shared.spec.argv);
    if let Err(error) = check_program(program, &env) {
        return refused(error.to_string());
    }
    let (reply, outcome) = sync_channel(1);
    shared.command(Command::Run { argv, env, reply });
    match outcome.recv_timeout(Duration::from_secs(30)) {
        Ok(Ok(())) => Answer::Done,
        Ok(Err(message)) => refused(message),
        Err(_) => refused("the pod is ending".to_owned()),
    }
}

/// Verifies the members and makes exactly the admitted ones the engine's peers.
fn roster(shared: &Shared, members: &[String], authorised: Option<Vec<AuthorisedKey>>) -> Answer {
    let parsed: Vec<std::result::Result<SignedStatement, String>> = members.iter().map(|text| parse(text)).collect();
    let statements: Vec<SignedStatement> = parsed.iter().flatten().copied().collect();
    let mut roster = lock(&shared.roster);
    if let Some(keys) = authorised {
        roster.authorise(keys.into_iter().map(Into::into).collect());
    }
    let mut judged = roster.replace(&statements, now().secs()).into_iter();
    let verdicts = parsed.into_iter().map(|parsed| match parsed {
        Ok(_) => match judged.next() {
            Some(Ok(ip)) => Verdict { ip: Some(ip), refused: None },
            Some(Err(refusal)) => Verdict { ip: None, refused: Some(refusal.to_string()) },
            None => Verdict { ip: None, refused: Some("not judged".to_owned()) },
        },
        Err(message) => Verdict { ip: None, refused: Some(message) },
    });
    let verdicts = verdicts.collect();
    // The roster stays locked, so that of two changes at once the later one wins in both places.
    pump::lock(&shared.engine).set_peers(roster.peers(), &mut |out| shared.link.emit(out));
    Answer::Roster { verdicts }
}

fn parse(text: &str) -> std::result::Result<SignedStatement, String> {
    let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
    let bytes = bytes.ok_or("a member is a signed pod key statement in hexadecimal")?;
    SignedStatement::from_bytes(&bytes).map_err(|error| error.to_string())
}

fn dial(shared: &Shared, port: u16) -> Result<OwnedFd> {
    let socket = door::ask(&lock(&shared.door))?;
    connect_inside(&socket, SocketAddr::from((shared.spec.overlay.ip, port)))?;
    Ok(socket)
}

fn wait(shared: &Shared, timeout: Duration) -> Answer {
    let deadline = Instant::now() + timeout.min(WAIT_MAX);
    let mut view = lock(&shared.view);
    while !matches!(view.state, State::Exited(_)) && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        view = shared.changed.wait_timeout(view, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    drop(view);
    Answer::Status(Box::new(shared.status()))
}

fn send_output(mut connection: &UnixStream, shared: &Shared, offset: u64, follow: bool) -> Result<()> {
    // A follower may be slow to read for as long as its own reader is.
    connection.set_write_timeout(None)?;
    let mut buffer = vec![0u8; 16 * 1024];
    let (mut at, mut count) = output::read(&shared.dir, offset, &mut buffer)?;
    say(connection, &Answer::Output { offset: at })?;
    loop {
        connection.write_all(&buffer[..count])?;
        let next = at + count as u64;
        let ended = lock(&shared.view).output_ended;
        (at, count) = output::read(&shared.dir, next, &mut buffer)?;
        if at != next || (count == 0 && (ended || !follow)) {
            // The end; or a gap, which the caller learns of by asking again from where it is.
            return Ok(());
        }
        if count == 0 {
            let view = lock(&shared.view);
            // Woken by every change; a second bounds what a missed one costs.
            drop(shared.changed.wait_timeout(view, Duration::from_secs(1)));
            if hung_up(connection) {
                return Ok(());
            }
        }
    }
}

/// Whether the caller has closed (POLLHUP is always told), so that a follower of a silent pod does not stay for ever.
fn hung_up(connection: &UnixStream) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut ready = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
