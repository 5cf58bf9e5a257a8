//! What a transaction costs on the local chain when it has a thousand accounts, and when it has a hundred thousand.
//!
//! Prints one line of JSON: milliseconds of a whole transfer (request, signature, run, index, answer) in both, and their
//! ratio. Accounts are made by transfers as everybody makes them, so the large chain also has a hundred times as many past
//! transactions. Both chains are measured in turns, and the fastest turn counts: what else the machine does is no cost
//! of the chain.
//!
//! `cargo run --release -p atoll-chain --features local --example chain_cost`

use std::sync::Arc;
use std::time::Instant;

use atoll_chain::local::{Engine, EngineConfig, MARKET_SO, Settings, WallClock};
use atoll_chain::{Address, Hash, Instruction, Keypair, market, sign, spl};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

const SMALL: u64 = 1_000;
const LARGE: u64 = 100_000;
/// New accounts of one transaction; more do not fit into its 1,232 bytes.
const ACCOUNTS_PER_TRANSACTION: u64 = 20;
const ACCOUNTS_STEP: usize = 20;
const TURNS: u64 = 20;
const TRANSACTIONS_PER_TURN: u64 = 200;

#[derive(Debug)]
struct Still;

impl WallClock for Still {
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

struct World {
    engine: Engine,
    payer: Keypair,
    blockhash: Hash,
    sent: u64,
}

impl World {
    fn new(accounts: u64) -> Self {
        let programs = vec![(market::PROGRAM_ID, MARKET_SO.to_vec())];
        let config =
            EngineConfig { genesis_seed: [1; 32], programs, clock: Arc::new(Still), settings: Settings::default() };
        let engine = Engine::in_memory(config).expect("the committed program loads");
        let mut world = Self { engine, payer: Keypair::from_seed(&[1; 32]), blockhash: Hash([0; 32]), sent: 0 };
        world.ask("requestAirdrop", json!([world.payer.address(), 10_000 * spl::LAMPORTS_PER_SOL]));
        let latest = world.ask("getLatestBlockhash", json!([]));
        let blockhash = latest["value"]["blockhash"].as_str().and_then(|text| text.parse().ok());
        world.blockhash = blockhash.expect("a blockhash is base58");
        for first in (0..accounts).step_by(ACCOUNTS_STEP) {
            let new = first..accounts.min(first + ACCOUNTS_PER_TRANSACTION);
            let transfers: Vec<_> = new.map(|number| world.transfer(number, 1_000_000)).collect();
            let body = world.body(&transfers);
            world.send(&body);
        }
        world
    }

    fn transfer(&self, account: u64, lamports: u64) -> Instruction {
        let mut address = [9; 32];
        address[..8].copy_from_slice(&account.to_be_bytes());
        spl::system_transfer(self.payer.address(), Address(address), lamports)
    }

    fn body(&self, instructions: &[Instruction]) -> Vec<u8> {
        let signed = sign(instructions, &self.payer, &[], &self.blockhash).expect("a transfer can be signed");
        let params = json!([BASE64.encode(signed.bytes()), { "encoding": "base64" }]);
        request("sendTransaction", &params)
    }

    fn send(&mut self, body: &[u8]) {
        let answer = self.engine.answer(body).body;
        assert!(!answer.windows(7).any(|part| part == b"\"error\""), "{}", String::from_utf8_lossy(&answer));
        self.sent += 1;
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let answer = self.engine.answer(&request(method, &params)).body;
        let mut answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
        answer["result"].take()
    }

    /// Milliseconds of a transaction, once.
    fn turn(&mut self, accounts: u64) -> f64 {
        // Spread over all accounts, and each with an amount of its own, so that no two are one transaction.
        let bodies: Vec<_> = (0..TRANSACTIONS_PER_TURN)
            .map(|number| {
                let account = (self.sent + number).wrapping_mul(7919) % accounts;
                self.body(&[self.transfer(account, 1_000 + self.sent + number)])
            })
            .collect();
        let start = Instant::now();
        for body in &bodies {
            self.send(body);
        }
        start.elapsed().as_secs_f64() * 1000.0 / 200.0
    }
}

fn request(method: &str, params: &Value) -> Vec<u8> {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string().into_bytes()
}

fn main() {
    let (mut small, mut large) = (World::new(SMALL), World::new(LARGE));
    let (mut small_ms, mut large_ms) = (f64::MAX, f64::MAX);
    for _ in 0..TURNS {
        small_ms = small_ms.min(small.turn(SMALL));
        large_ms = large_ms.min(large.turn(LARGE));
    }
    println!("{}", json!({ "ms_1k": small_ms, "ms_100k": large_ms, "ratio": large_ms / small_ms }));
}
