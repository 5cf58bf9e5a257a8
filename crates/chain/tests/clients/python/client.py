"""solana-py and solders against the local chain: every answer is read by solders' own types.

Arguments: the address of the JSON-RPC, that of the WebSocket, and in the second phase what the first one printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.core import RPCException
from solana.rpc.models import MemcmpOpts, TokenAccountOpts, TxOpts
from solana.rpc.websocket_api import SolanaWsClient
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.rpc.responses import (
    AccountNotification,
    ProgramNotification,
    SignatureNotification,
    SlotNotification,
)
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.system_program import (
    CreateAccountParams,
    TransferParams,
    create_account,
    transfer,
)
from solders.transaction import VersionedTransaction
from spl.token.constants import TOKEN_PROGRAM_ID
from spl.token.instructions import (
    create_idempotent_associated_token_account,
    get_associated_token_address,
    initialize_mint2,
    mint_to,
)
from spl.token.models import InitializeMint2Params, MintToParams

SOL = 1_000_000_000
WAIT_S = 20


def same(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: found {found!r}, expected {expected!r}")


def check(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(f"not as expected: {what}")


async def signed(client: AsyncClient, payer: Keypair, instructions: list[Instruction], *signers: Keypair):
    latest = (await client.get_latest_blockhash()).value
    message = MessageV0.try_compile(payer.pubkey(), instructions, [], latest.blockhash)
    return VersionedTransaction(message, [payer, *signers]), latest.last_valid_block_height


async def run(client: AsyncClient, payer: Keypair, instructions: list[Instruction], *signers: Keypair) -> Signature:
    transaction, height = await signed(client, payer, instructions, *signers)
    opts = TxOpts(skip_confirmation=False, preflight_commitment=Confirmed, last_valid_block_height=height)
    return (await client.send_transaction(transaction, opts)).value


async def lamports(client: AsyncClient, ws: str, payer: Keypair, other: Pubkey) -> Signature:
    move = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=other, lamports=SOL))
    transaction, height = await signed(client, payer, [move])
    wanted = {AccountNotification, ProgramNotification, SignatureNotification, SlotNotification}
    async with SolanaWsClient(ws) as socket:
        account = await socket.account_subscribe(pubkey=other, commitment=Confirmed, encoding="base64")
        await socket.program_subscribe(program_id=SYSTEM, commitment=Confirmed, encoding="base64", filters=[0])
        await socket.signature_subscribe(signature=transaction.signatures[0], commitment=Confirmed)
        slot = await socket.slot_subscribe()
        opts = TxOpts(skip_confirmation=False, preflight_commitment=Confirmed, last_valid_block_height=height)
        signature = (await client.send_transaction(transaction, opts)).value
        while wanted:
            heard = await asyncio.wait_for(socket.recv(), WAIT_S)
            if isinstance(heard, AccountNotification):
                same(heard.result.value.lamports, SOL, "the account that was told")
            if isinstance(heard, SignatureNotification):
                check(heard.result.value.err is None, "the signature that was told")
            wanted.discard(type(heard))
        await socket.unsubscribe(account)
        await socket.unsubscribe(slot)
    return signature


async def history(client: AsyncClient, payer: Keypair, other: Pubkey, signature: Signature) -> int:
    found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    meta = found.transaction.meta
    same((found.transaction.version, meta.err, meta.fee), (0, None, 5000), "the transaction")
    keys = found.transaction.transaction.message.account_keys
    same(meta.post_balances[keys.index(other)], SOL, "the balance in the history")
    await client.get_transaction(signature, "jsonParsed", max_supported_transaction_version=0)
    raw = await client.get_transaction(signature, "base64", max_supported_transaction_version=0)
    same(raw.value.transaction.transaction.signatures[0], signature, "the bytes")
    page = (await client.get_signatures_for_address(payer.pubkey(), limit=10)).value
    same((page[0].signature, len(page)), (signature, 2), "the signatures")
    before = (await client.get_signatures_for_address(payer.pubkey(), before=signature)).value
    same(len(before), 1, "the signatures before")
    statuses = (await client.get_signature_statuses([signature])).value
    check(statuses[0] is not None and statuses[0].err is None, "the status")
    while (await client.get_slot()).value <= found.slot:
        await asyncio.sleep(0.05)
    block = (await client.get_block(found.slot, max_supported_transaction_version=0)).value
    names = [one.transaction.signatures[0] for one in block.transactions]
    check(signature in names, "the block has the transfer")
    return found.slot


async def failures(client: AsyncClient, payer: Keypair, other: Pubkey) -> Signature:
    too_much = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=other, lamports=5000 * SOL))
    transaction, _ = await signed(client, payer, [too_much])
    try:
        await client.send_transaction(transaction)
    except RPCException as refused:
        check("custom program error: 0x1" in str(refused), f"the refusal: {refused}")
        check("insufficient lamports" in str(refused), f"the refusal's logs: {refused}")
    else:
        raise AssertionError("a transfer of too much was taken")
    tried = (await client.simulate_transaction(transaction)).value
    check(tried.err is not None and any("insufficient" in line for line in tried.logs), "the simulation")
    signature = (await client.send_transaction(transaction, TxOpts(skip_preflight=True))).value
    found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    check(found.transaction.meta.err is not None, "the failed transaction")
    check(any("insufficient" in line for line in found.transaction.meta.log_messages), "its logs")
    return signature


async def tokens(client: AsyncClient, payer: Keypair) -> None:
    mint, owner = Keypair(), payer.pubkey()
    rent = (await client.get_minimum_balance_for_rent_exemption(82)).value
    account = get_associated_token_address(owner, mint.pubkey())
    create = CreateAccountParams(
        from_pubkey=owner, to_pubkey=mint.pubkey(), lamports=rent, space=82, owner=TOKEN_PROGRAM_ID
    )
    make = InitializeMint2Params(decimals=9, program_id=TOKEN_PROGRAM_ID, mint=mint.pubkey(), mint_authority=owner)
    fund = MintToParams(
        program_id=TOKEN_PROGRAM_ID, mint=mint.pubkey(), dest=account, mint_authority=owner, amount=5_500_000_000
    )
    instructions = [
        create_account(create),
        initialize_mint2(make),
        create_idempotent_associated_token_account(owner, owner, mint.pubkey()),
        mint_to(fund),
    ]
    await run(client, payer, instructions, mint)
    balance = (await client.get_token_account_balance(account)).value
    same((balance.amount, balance.ui_amount_string), ("5500000000", "5.5"), "the tokens")
    same((await client.get_token_supply(mint.pubkey())).value.amount, "5500000000", "the supply")
    same((await client.get_token_largest_accounts(mint.pubkey())).value[0].address, account, "the largest")
    opts = TokenAccountOpts(mint=mint.pubkey())
    same((await client.get_token_accounts_by_owner(owner, opts)).value[0].pubkey, account, "of the owner")
    parsed = (await client.get_token_accounts_by_owner_json_parsed(owner, opts)).value
    same(parsed[0].account.data.parsed["info"]["tokenAmount"]["uiAmountString"], "5.5", "the parsed account")
    filters = [165, MemcmpOpts(offset=0, bytes=str(mint.pubkey()))]
    held = (await client.get_program_accounts(TOKEN_PROGRAM_ID, encoding="base64", filters=filters)).value
    same([one.pubkey for one in held], [account], "the program's accounts")
    zstd = (await client.get_account_info(account, encoding="base64+zstd")).value
    same(len(zstd.data), 165, "an account in zstd")


async def chain(client: AsyncClient) -> None:
    check((await client.get_epoch_info()).value.slots_in_epoch == 432_000, "the epoch")
    await client.get_epoch_schedule()
    await client.get_identity()
    await client.get_slot_leader()
    await client.get_slot_leaders(0, 3)
    await client.get_cluster_nodes()
    await client.get_recent_prioritization_fees()
    await client.get_block_height()
    await client.get_first_available_block()
    await client.get_transaction_count()
    check(bool((await client.get_version()).value.solana_core), "the version")
    check(await client.is_connected(), "connected")


async def first(rpc: str, ws: str) -> dict[str, Any]:
    payer, other = Keypair(), Keypair().pubkey()
    async with AsyncClient(rpc, Confirmed) as client:
        airdrop = (await client.request_airdrop(payer.pubkey(), 10 * SOL)).value
        await asyncio.wait_for(client.confirm_transaction(airdrop, Confirmed), WAIT_S)
        same((await client.get_balance(payer.pubkey())).value, 10 * SOL, "the airdrop")
        signature = await lamports(client, ws, payer, other)
        slot = await history(client, payer, other, signature)
        failed = await failures(client, payer, other)
        await tokens(client, payer)
        await chain(client)
        genesis = str((await client.get_genesis_hash()).value)
    names = {"signature": signature, "failed": failed, "payer": payer.pubkey(), "other": other}
    return {"genesis": genesis, "slot": slot, **{name: str(value) for name, value in names.items()}}


async def again(rpc: str, found: dict[str, Any]) -> None:
    async with AsyncClient(rpc, Confirmed) as client:
        same(str((await client.get_genesis_hash()).value), found["genesis"], "the genesis")
        same((await client.get_balance(Pubkey.from_string(found["other"]))).value, SOL, "the balance")
        signature = Signature.from_string(found["signature"])
        transaction = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
        same((transaction.slot, transaction.transaction.meta.err), (found["slot"], None), "the transaction")
        failed = Signature.from_string(found["failed"])
        lost = (await client.get_transaction(failed, max_supported_transaction_version=0)).value
        check(lost.transaction.meta.err is not None, "the failed transaction")
        page = (await client.get_signatures_for_address(Pubkey.from_string(found["payer"]))).value
        check(signature in [one.signature for one in page], "the signatures")


def main() -> None:
    rpc, ws, *found = sys.argv[1:]
    if found:
        asyncio.run(again(rpc, json.loads(found[0])))
    else:
        print(json.dumps(asyncio.run(first(rpc, ws))))


if __name__ == "__main__":
    main()
