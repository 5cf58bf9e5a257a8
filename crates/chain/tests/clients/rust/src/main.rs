//! `solana-rpc-client` and `solana-pubsub-client` against the local chain: every answer is read by Solana's own types.
//!
//! Arguments: the address of the JSON-RPC, that of the WebSocket, and in the second phase what the first one printed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use solana_account_decoder_client_types::UiAccountEncoding;
use solana_commitment_config::CommitmentConfig;
use solana_instruction::{AccountMeta, Instruction};
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_pubsub_client::pubsub_client::PubsubClient;
use solana_rpc_client::rpc_client::{GetConfirmedSignaturesForAddress2Config, RpcClient};
use solana_rpc_client_types::config::{
    RpcAccountInfoConfig, RpcProgramAccountsConfig, RpcSendTransactionConfig, RpcSignatureSubscribeConfig,
};
use solana_rpc_client_types::filter::RpcFilterType;
use solana_rpc_client_types::request::TokenAccountsFilter;
use solana_rpc_client_types::response::RpcSignatureResult;
use solana_signature::Signature;
use solana_signer::Signer;
use solana_system_interface::instruction::{create_account, transfer};
use solana_transaction::Transaction;
use solana_transaction_status_client_types::UiTransactionEncoding;

const SOL: u64 = 1_000_000_000;
const WAIT: Duration = Duration::from_secs(20);
const TOKEN: Pubkey = Pubkey::from_str_const("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
const ASSOCIATED: Pubkey = Pubkey::from_str_const("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL");
const SYSTEM: Pubkey = Pubkey::from_str_const("11111111111111111111111111111111");

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < deadline, "asked 20 s for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signed(client: &RpcClient, instructions: &[Instruction], signers: &[&Keypair]) -> Transaction {
    let blockhash = client.get_latest_blockhash().unwrap();
    Transaction::new_signed_with_payer(instructions, Some(&signers[0].pubkey()), signers, blockhash)
}

fn subscriptions(ws: &str, client: &RpcClient, payer: &Keypair, other: Pubkey) -> Signature {
    let confirmed = Some(CommitmentConfig::confirmed());
    let account_config =
        RpcAccountInfoConfig { encoding: Some(UiAccountEncoding::Base64), commitment: confirmed, ..Default::default() };
    let program_config = RpcProgramAccountsConfig {
        filters: Some(vec![RpcFilterType::DataSize(0)]),
        account_config: account_config.clone(),
        ..Default::default()
    };
    let transaction = signed(client, &[transfer(&payer.pubkey(), &other, SOL)], &[payer]);
    let signature = transaction.signatures[0];
    let (on_account, accounts) = PubsubClient::account_subscribe(ws, &other, Some(account_config)).unwrap();
    let (on_program, programs) = PubsubClient::program_subscribe(ws, &SYSTEM, Some(program_config)).unwrap();
    let (on_slot, slots) = PubsubClient::slot_subscribe(ws).unwrap();
    let config = RpcSignatureSubscribeConfig { commitment: confirmed, enable_received_notification: Some(false) };
    let (on_signature, signatures) = PubsubClient::signature_subscribe(ws, &signature, Some(config)).unwrap();
    assert_eq!(client.send_and_confirm_transaction(&transaction).unwrap(), signature);
    assert_eq!(accounts.recv_timeout(WAIT).unwrap().value.lamports, SOL);
    until("the program", || programs.recv_timeout(WAIT).unwrap().value.pubkey == other.to_string());
    let told = signatures.recv_timeout(WAIT).unwrap().value;
    assert!(matches!(told, RpcSignatureResult::ProcessedSignature(result) if result.err.is_none()));
    let first = slots.recv_timeout(WAIT).unwrap();
    assert!(slots.recv_timeout(WAIT).unwrap().slot > first.slot && first.root <= first.slot);
    on_slot.send_unsubscribe().unwrap();
    // This client cannot end a subscription before it is told something again: its reader holds the socket's lock.
    std::mem::forget((on_account, on_program, on_signature));
    signature
}

fn history(client: &RpcClient, payer: &Pubkey, signature: &Signature) -> u64 {
    let found = client.get_transaction(signature, UiTransactionEncoding::Json).unwrap();
    let meta = found.transaction.meta.unwrap();
    assert_eq!((meta.err, meta.fee), (None, 5000));
    assert_eq!(meta.pre_balances[1] + SOL, meta.post_balances[1]);
    for encoding in [UiTransactionEncoding::Base64, UiTransactionEncoding::Base58, UiTransactionEncoding::JsonParsed] {
        client.get_transaction(signature, encoding).unwrap();
    }
    let page = client.get_signatures_for_address(payer).unwrap();
    assert_eq!((page[0].signature.clone(), page.len()), (signature.to_string(), 2));
    let before = GetConfirmedSignaturesForAddress2Config { before: Some(*signature), ..Default::default() };
    assert_eq!(client.get_signatures_for_address_with_config(payer, before).unwrap().len(), 1);
    until("the block", || client.get_slot().unwrap() > found.slot);
    client.get_block(found.slot).unwrap();
    let block = client.get_block_with_encoding(found.slot, UiTransactionEncoding::Base64).unwrap();
    assert!(block.transactions.iter().any(|one| one.transaction.decode().unwrap().signatures[0] == *signature));
    assert_eq!(client.get_blocks(found.slot, Some(found.slot)).unwrap(), [found.slot]);
    assert_eq!(Some(client.get_block_time(found.slot).unwrap()), found.block_time);
    found.slot
}

fn failures(client: &RpcClient, payer: &Keypair, other: &Pubkey) -> Signature {
    let too_much = signed(client, &[transfer(&payer.pubkey(), other, 5000 * SOL)], &[payer]);
    let refused = client.send_and_confirm_transaction(&too_much).unwrap_err();
    assert!(refused.get_transaction_error().is_some(), "{refused:?}");
    assert!(format!("{refused:?}").contains("insufficient lamports"), "{refused:?}");
    let tried = client.simulate_transaction(&too_much).unwrap().value;
    assert!(tried.err.is_some() && tried.logs.unwrap().iter().any(|line| line.contains("insufficient")));
    let config = RpcSendTransactionConfig { skip_preflight: true, ..Default::default() };
    let signature = client.send_transaction_with_config(&too_much, config).unwrap();
    let found = client.get_transaction(&signature, UiTransactionEncoding::Json).unwrap();
    assert!(found.transaction.meta.unwrap().err.is_some());
    signature
}

fn tokens(client: &RpcClient, payer: &Keypair) {
    let (owner, mint) = (payer.pubkey(), Keypair::new());
    let seeds = [owner.as_ref(), TOKEN.as_ref(), mint.pubkey().as_ref()].map(<[u8]>::to_vec);
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    let (account, _) = Pubkey::find_program_address(&seeds, &ASSOCIATED);
    let rent = client.get_minimum_balance_for_rent_exemption(82).unwrap();
    let write = |key| AccountMeta::new(key, false);
    let read = |key| AccountMeta::new_readonly(key, false);
    let made = [&[20, 9][..], owner.as_ref(), &[0]].concat();
    let amount = [&[7][..], &5_500_000_000_u64.to_le_bytes()].concat();
    let associated = vec![
        AccountMeta::new(owner, true),
        write(account),
        read(owner),
        read(mint.pubkey()),
        read(SYSTEM),
        read(TOKEN),
    ];
    let funded = vec![write(mint.pubkey()), write(account), AccountMeta::new_readonly(owner, true)];
    let instructions = [
        create_account(&owner, &mint.pubkey(), rent, 82, &TOKEN),
        Instruction { program_id: TOKEN, accounts: vec![write(mint.pubkey())], data: made },
        Instruction { program_id: ASSOCIATED, accounts: associated, data: vec![1] },
        Instruction { program_id: TOKEN, accounts: funded, data: amount },
    ];
    client.send_and_confirm_transaction(&signed(client, &instructions, &[payer, &mint])).unwrap();
    assert_eq!(client.get_token_account_balance(&account).unwrap().ui_amount_string, "5.5");
    assert_eq!(client.get_token_supply(&mint.pubkey()).unwrap().amount, "5500000000");
    let owned = client.get_token_accounts_by_owner(&owner, TokenAccountsFilter::Mint(mint.pubkey())).unwrap();
    assert_eq!(owned[0].pubkey, account.to_string());
    assert_eq!(client.get_token_account(&account).unwrap().unwrap().owner, owner.to_string());
    // This client asks for accounts in zstd.
    assert_eq!(client.get_account(&account).unwrap().data.len(), 165);
    assert!(client.get_program_accounts(&TOKEN).unwrap().iter().any(|(key, _)| *key == account));
}

fn first(rpc: &str, ws: &str) -> Value {
    let client = RpcClient::new_with_commitment(rpc.to_owned(), CommitmentConfig::confirmed());
    let (payer, other) = (Keypair::new(), Pubkey::new_unique());
    let airdrop = client.request_airdrop(&payer.pubkey(), 10 * SOL).unwrap();
    client.poll_for_signature(&airdrop).unwrap();
    assert_eq!(client.get_balance(&payer.pubkey()).unwrap(), 10 * SOL);
    let signature = subscriptions(ws, &client, &payer, other);
    let slot = history(&client, &payer.pubkey(), &signature);
    let failed = failures(&client, &payer, &other);
    tokens(&client, &payer);
    assert_eq!(client.get_epoch_info().unwrap().slots_in_epoch, 432_000);
    client.get_health().unwrap();
    client.get_identity().unwrap();
    client.get_cluster_nodes().unwrap();
    client.get_recent_prioritization_fees(&[]).unwrap();
    client.get_version().unwrap();
    json!({
        "genesis": client.get_genesis_hash().unwrap().to_string(), "signature": signature.to_string(), "slot": slot,
        "failed": failed.to_string(), "payer": payer.pubkey().to_string(), "other": other.to_string(),
    })
}

fn again(rpc: &str, found: &Value) {
    let client = RpcClient::new_with_commitment(rpc.to_owned(), CommitmentConfig::confirmed());
    let text = |name: &str| found[name].as_str().unwrap();
    assert_eq!(client.get_genesis_hash().unwrap().to_string(), text("genesis"));
    assert_eq!(client.get_balance(&text("other").parse().unwrap()).unwrap(), SOL);
    let transaction = client.get_transaction(&text("signature").parse().unwrap(), UiTransactionEncoding::Json).unwrap();
    assert_eq!(json!(transaction.slot), found["slot"]);
    let failed = client.get_transaction(&text("failed").parse().unwrap(), UiTransactionEncoding::Json).unwrap();
    assert!(failed.transaction.meta.unwrap().err.is_some());
    let page = client.get_signatures_for_address(&text("payer").parse().unwrap()).unwrap();
    assert!(page.iter().any(|one| one.signature == text("signature")));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [rpc, ws] => println!("{}", first(rpc, ws)),
        [rpc, _, found] => again(rpc, &serde_json::from_str(found).unwrap()),
        _ => panic!("the addresses of JSON-RPC and WebSocket are missing"),
    }
}
