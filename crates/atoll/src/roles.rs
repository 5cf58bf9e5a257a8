//! Dispatch: each role on the runtime that it needs, and its failure in words.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use atoll_cli::exit::{Exit, Failure};
use atoll_cli::output::Output;
use atoll_domain::id::WorkerId;
use clap::CommandFactory as _;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Admin, AdminKey, Arguments, LocalChain, Role, Server, Worker};
use crate::dev;

/// Runs what was typed.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let json = arguments.json;
    let outcome = match arguments.role {
        Role::Client(command) => return atoll_cli::command::run(command, json),
        Role::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "atoll", &mut std::io::stdout());
            Ok(())
        }
        Role::Dev(args) => dev::run(&args, json),
        Role::Server(args) => server(args),
        Role::Worker(verb) => worker(verb, json),
        Role::Admin(Admin::Key(verb)) => admin_key(verb, json),
        Role::LocalChain(args) => local_chain(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = error
                .downcast::<Failure>()
                .unwrap_or_else(|error| Failure::new(Exit::Internal, "role", format!("{error:#}")));
            Output::detect(json).failure(&failure);
            ExitCode::from(failure.exit.status())
        }
    }
}

/// Logs of a long-lived role, to stderr: one line a decision. `RUST_LOG` chooses what.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call, from a role that starts another in process, changes nothing.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}

/// A runtime with as many threads as the role needs: one is enough for what mostly waits.
fn runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    built.context("starting the runtime")
}

fn server(args: Server) -> anyhow::Result<()> {
    log();
    let flags = atoll_control::config::Overrides {
        state: args.state,
        listen: args.listen,
        names: (!args.names.is_empty()).then_some(args.names),
        url: args.url,
        rpc: args.rpc,
        store: store_url(args.store, args.store_file.as_deref())?,
        objects: args.objects,
        port_file: args.port_file,
        strangers: args.strangers.map(|word| word == "yes"),
        ..Default::default()
    };
    let config = atoll_control::config::Config::read(args.config.as_deref(), flags)?;
    runtime(2)?.block_on(Box::pin(atoll_control::serve::serve(config)))
}

/// The store's URL as given, or from a file that nobody else can read: it may hold a password.
fn store_url(given: Option<String>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    use std::os::unix::fs::PermissionsExt as _;

    let Some(file) = file else { return Ok(given) };
    let reading = || format!("reading the store's URL from {}", file.display());
    let mode = std::fs::metadata(file).with_context(reading)?.permissions().mode();
    if mode & 0o077 != 0 {
        anyhow::bail!("{} is open to others: run `chmod 600 {}`", file.display(), file.display());
    }
    let text = std::fs::read_to_string(file).with_context(reading)?;
    match text.trim() {
        "" => anyhow::bail!("{} is empty: write the store's URL there", file.display()),
        url => Ok(Some(url.to_owned())),
    }
}

fn admin_key(verb: AdminKey, json: bool) -> anyhow::Result<()> {
    let AdminKey::Create { state, store, store_file, user, wallet } = verb;
    let store = store_url(store, store_file.as_deref())?
        .unwrap_or_else(|| format!("sqlite:{}", state.join("control.db").display()));
    std::fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
    let key = runtime(1)?.block_on(async {
        let store = atoll_control::store::open(&store).await.context("opening the store")?;
        let mut random = |bytes: &mut [u8]| {
            getrandom::fill(bytes).expect("the operating system gives randomness; no key can be made without");
        };
        let now = atoll_cli::session::now();
        Ok::<_, anyhow::Error>(atoll_control::admin::key_create(&*store, &user, wallet, now, &mut random).await?)
    })?;
    let shown = serde_json::json!({"user": user, "wallet": wallet, "api_key": key});
    Output::detect(json).result(&shown, || format!("{key}\n  shown once; keep it like a password"))?;
    Ok(())
}

fn worker(verb: Worker, json: bool) -> anyhow::Result<()> {
    use atoll_worker::{config, doctor, join, outside, run};

    log();
    let outside = outside::Machine;
    let env: BTreeMap<String, String> = std::env::vars().collect();
    match verb {
        Worker::Join(args) => {
            let wanted = join::JoinConfig {
                state: args.state,
                server: args.server,
                ca: args.ca,
                rpc: args.rpc,
                wallet: args.wallet,
                ask: args.ask,
                advertise: args.advertise,
                packs: args.pack,
                devices: args.devices,
                tun_device: args.tun_device,
            };
            let out = Output::detect(json);
            let joined = runtime(1)?.block_on(Box::pin(join::join(&wanted, &outside, &mut |line| out.say(line))))?;
            let id = WorkerId::of_device_key(&joined.device_key);
            let shown = serde_json::json!({
                "worker": id, "device_key": joined.device_key, "slot": joined.slot, "network_root": joined.network,
            });
            let state = wanted.state.display();
            out.result(&shown, || format!("joined as {id}; `atoll worker run --state {state}` serves"))?;
            Ok(())
        }
        Worker::Run { state } => {
            let config = config::Config::load(&state, &env, config::Overrides::default())?;
            let executable = std::env::current_exe().context("finding this executable")?;
            runtime(1)?.block_on(Box::pin(run::run(&state, config, executable, Arc::new(outside))))
        }
        Worker::Doctor { state } => {
            let report =
                runtime(1)?.block_on(Box::pin(doctor::doctor(&state, &env, config::Overrides::default(), &outside)));
            let checks: Vec<_> = report
                .checks
                .iter()
                .map(|check| {
                    serde_json::json!({
                        "what": check.what,
                        "verdict": format!("{:?}", check.verdict).to_lowercase(),
                        "found": check.found,
                        "cure": check.cure,
                    })
                })
                .collect();
            Output::detect(json).result(&checks, || report.to_string())?;
            anyhow::ensure!(
                report.exit_code() == 0,
                "this machine cannot serve yet: cure what is marked broken, then ask again"
            );
            Ok(())
        }
    }
}

#[cfg(feature = "local")]
fn local_chain(args: LocalChain) -> anyhow::Result<()> {
    use atoll_chain::local::{LocalChainConfig, serve};
    use tokio::signal::unix::{SignalKind, signal};

    log();
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("drawing the genesis hash")?;
    let mut config = LocalChainConfig::new(args.state, seed);
    config.listen = args.listen;
    config.programs = vec![(atoll_chain::market::PROGRAM_ID, dev::MARKET_ELF.to_vec())];
    runtime(1)?.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut chain = serve(config).await?;
        if let Some(path) = &args.port_file {
            write_port(path, chain.address().port())?;
        }
        let alone = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = chain.stopped() => true,
        };
        chain.shutdown().await;
        anyhow::ensure!(!alone, "the local chain stopped by itself: its log cannot be written; is the disk full?");
        Ok(())
    })
}

/// Writes a port file whole: readers wait for its name.
#[cfg(feature = "local")]
fn write_port(path: &Path, port: u16) -> anyhow::Result<()> {
    let draft = path.with_extension("tmp");
    std::fs::write(&draft, format!("{port}\n"))
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(not(feature = "local"))]
fn local_chain(_: LocalChain) -> anyhow::Result<()> {
    anyhow::bail!(dev::WITHOUT_LOCAL)
}
