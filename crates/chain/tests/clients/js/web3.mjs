// @solana/web3.js against the local chain. The WebSocket's port is the one it derives by itself: the next one.

import {
  Connection,
  Keypair,
  PublicKey,
  SendTransactionError,
  SystemProgram,
  Transaction,
  TransactionInstruction,
  TransactionMessage,
  VersionedTransaction,
} from '@solana/web3.js';

import { check, phases, same, until, within } from './check.mjs';

const SOL = 1_000_000_000;
const TOKEN = new PublicKey('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA');
const ASSOCIATED = new PublicKey('ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL');

/** Sends and confirms by the blockhash strategy: a subscription to the signature, and the block height. */
async function run(connection, payer, instructions, signers = [], options = {}) {
  const latest = await connection.getLatestBlockhash();
  const transaction = new Transaction({ feePayer: payer.publicKey, ...latest }).add(...instructions);
  const signature = await connection.sendTransaction(transaction, [payer, ...signers], options);
  // What failed before web3.js listened it throws as it is, instead of giving it.
  const bare = (error) => {
    if (error instanceof Error) throw error;
    return { value: { err: error } };
  };
  const confirmed = await within('the confirmation', connection.confirmTransaction({ signature, ...latest }).catch(bare));
  return { signature, error: confirmed.value.err, context: confirmed.context };
}

function mintInstructions(payer, mint, account, rent, amount) {
  const key = (pubkey, isSigner, isWritable) => ({ pubkey, isSigner, isWritable });
  const bytes = Buffer.alloc(9);
  bytes[0] = 7;
  bytes.writeBigUInt64LE(amount, 1);
  const space = 82;
  return [
    SystemProgram.createAccount({
      fromPubkey: payer, newAccountPubkey: mint, lamports: rent, space, programId: TOKEN,
    }),
    new TransactionInstruction({
      programId: TOKEN, keys: [key(mint, false, true)], data: Buffer.from([20, 9, ...payer.toBytes(), 0]),
    }),
    new TransactionInstruction({
      programId: ASSOCIATED,
      keys: [
        key(payer, true, true), key(account, false, true), key(payer, false, false), key(mint, false, false),
        key(SystemProgram.programId, false, false), key(TOKEN, false, false),
      ],
      data: Buffer.from([1]),
    }),
    new TransactionInstruction({
      programId: TOKEN, keys: [key(mint, false, true), key(account, false, true), key(payer, true, false)], data: bytes,
    }),
  ];
}

async function lamports(connection, payer, other) {
  const heard = { account: [], program: [], slots: [] };
  const subscriptions = [
    connection.onAccountChange(other, (info, context) => heard.account.push([info.lamports, context.slot])),
    connection.onProgramAccountChange(SystemProgram.programId, ({ accountId, accountInfo }) => {
      heard.program.push([accountId.toBase58(), accountInfo.lamports]);
    }, { filters: [{ dataSize: 0 }] }),
  ];
  const slots = connection.onSlotChange((slot) => heard.slots.push(slot));
  await until('slots', () => heard.slots.length >= 2);
  check(heard.slots[1].slot > heard.slots[0].slot && heard.slots[1].parent >= heard.slots[0].slot, 'slots grow');

  const transfer = SystemProgram.transfer({ fromPubkey: payer.publicKey, toPubkey: other, lamports: SOL });
  const { signature, error } = await run(connection, payer, [transfer]);
  same(error, null, 'the transfer');
  await until('the account', () => heard.account.some(([lamports]) => lamports === SOL));
  await until('the program', () => heard.program.some(([id, lamports]) => id === other.toBase58() && lamports === SOL));
  for (const subscription of subscriptions) await connection.removeAccountChangeListener(subscription);
  await connection.removeSlotChangeListener(slots);
  return signature;
}

async function history(connection, payer, other, signature) {
  const found = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  same(found.version, 'legacy', 'the version');
  same(found.meta.err, null, 'the error');
  same(found.meta.fee, 5000, 'the fee');
  const at = found.transaction.message.staticAccountKeys.findIndex((key) => key.equals(other));
  same(found.meta.postBalances[at] - found.meta.preBalances[at], SOL, 'the balances');
  const parsed = await connection.getParsedTransaction(signature);
  same(parsed.transaction.message.instructions[0].parsed.info.lamports, SOL, 'the parsed transfer');
  check(parsed.transaction.message.accountKeys[0].signer, 'the payer signs');

  const page = await connection.getSignaturesForAddress(payer.publicKey, { limit: 1 });
  same(page[0].signature, signature, 'the newest signature');
  const before = await connection.getSignaturesForAddress(payer.publicKey, { before: signature });
  same(before.length, 1, 'signatures before the transfer: the airdrop');
  const airdrop = await connection.getParsedTransaction(before[0].signature);
  same(airdrop.transaction.message.instructions.at(-1).parsed.info.destination, payer.publicKey.toBase58(), 'the airdrop');

  const block = await until('the block', () => connection.getBlock(found.slot).catch(() => null));
  check(block.transactions.some((one) => one.transaction.signatures[0] === signature), 'the block has the transfer');
  same((await connection.getBlockSignatures(found.slot)).blockhash, block.blockhash, 'the block');
  same((await connection.getBlocks(found.slot, found.slot))[0], found.slot, 'the blocks');
  same(await connection.getBlockTime(found.slot), found.blockTime, 'the time');
  const status = await connection.getSignatureStatus(signature, { searchTransactionHistory: true });
  check(['confirmed', 'finalized'].includes(status.value.confirmationStatus), 'the status');
}

async function failures(connection, payer, other) {
  const tooMuch = SystemProgram.transfer({ fromPubkey: payer.publicKey, toPubkey: other, lamports: 5000 * SOL });
  const refused = await run(connection, payer, [tooMuch]).catch((error) => error);
  check(refused instanceof SendTransactionError, `a refusal, and not ${refused}`);
  check(refused.message.includes('custom program error: 0x1'), refused.message);
  check((await refused.getLogs(connection)).some((line) => line.includes('insufficient lamports')), 'the refusal has its logs');

  const failed = await run(connection, payer, [tooMuch], [], { skipPreflight: true });
  same(failed.error, { InstructionError: [0, { Custom: 1 }] }, 'the failed transaction');
  const found = await connection.getTransaction(failed.signature, { maxSupportedTransactionVersion: 0 });
  same(found.meta.err, failed.error, 'the failure in the history');
  check(found.meta.logMessages.some((line) => line.includes('insufficient lamports')), 'the failure has its logs');
  return failed.signature;
}

async function tokens(connection, payer) {
  const mint = Keypair.generate();
  const [account] = PublicKey.findProgramAddressSync(
    [payer.publicKey.toBytes(), TOKEN.toBytes(), mint.publicKey.toBytes()], ASSOCIATED,
  );
  const heard = [];
  const filters = [{ dataSize: 165 }, { memcmp: { offset: 0, bytes: mint.publicKey.toBase58() } }];
  const subscription = connection.onProgramAccountChange(TOKEN, (one) => heard.push(one), { filters });
  const rent = await connection.getMinimumBalanceForRentExemption(82);
  const made = await run(
    connection, payer, mintInstructions(payer.publicKey, mint.publicKey, account, rent, 5_500_000_000n), [mint],
  );
  same(made.error, null, 'the tokens');
  await until('the token account', () => heard.length > 0);
  same(heard[0].accountId.toBase58(), account.toBase58(), 'the token account that was told');
  await connection.removeProgramAccountChangeListener(subscription);
  const balance = await connection.getTokenAccountBalance(account);
  same([balance.value.amount, balance.value.uiAmountString, balance.value.uiAmount], ['5500000000', '5.5', 5.5], 'tokens');
  same((await connection.getTokenSupply(mint.publicKey)).value.amount, '5500000000', 'the supply');
  same((await connection.getTokenLargestAccounts(mint.publicKey)).value[0].address.toBase58(), account.toBase58(), 'largest');
  const owned = await connection.getParsedTokenAccountsByOwner(payer.publicKey, { mint: mint.publicKey });
  same(owned.value[0].account.data.parsed.info.tokenAmount.uiAmountString, '5.5', 'the parsed token account');
  const raw = await connection.getTokenAccountsByOwner(payer.publicKey, { programId: TOKEN });
  same(raw.value.length, 1, 'token accounts of the owner');
  same((await connection.getProgramAccounts(TOKEN, { filters })).length, 1, 'token accounts of the mint');
  same((await connection.getParsedAccountInfo(mint.publicKey)).value.data.parsed.info.decimals, 9, 'the parsed mint');
  const found = await connection.getTransaction(made.signature, { maxSupportedTransactionVersion: 0 });
  same(found.meta.postTokenBalances[0].uiTokenAmount.uiAmountString, '5.5', 'the token balance in the history');
  check(found.meta.innerInstructions[0].instructions.length > 1, 'calls within the transaction');
}

async function versioned(connection, payer, other) {
  const latest = await connection.getLatestBlockhash();
  const transfer = SystemProgram.transfer({ fromPubkey: payer.publicKey, toPubkey: other, lamports: SOL });
  const message = new TransactionMessage({
    payerKey: payer.publicKey, recentBlockhash: latest.blockhash, instructions: [transfer],
  }).compileToV0Message();
  same((await connection.getFeeForMessage(message)).value, 5000, 'the fee of a message');
  const transaction = new VersionedTransaction(message);
  transaction.sign([payer]);
  const accounts = { encoding: 'base64', addresses: [other.toBase58()] };
  const tried = await connection.simulateTransaction(transaction, { sigVerify: true, accounts });
  same([tried.value.err, tried.value.accounts[0].lamports], [null, 2 * SOL], 'the simulation');
  const signature = await connection.sendTransaction(transaction);
  await within('the confirmation', connection.confirmTransaction({ signature, ...latest }));
  const found = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  same(found.version, 0, 'the version');
  const unsupported = await connection.getTransaction(signature).catch((error) => error);
  check(`${unsupported}`.includes('Transaction version (0) is not supported'), `${unsupported}`);
}

async function chain(connection) {
  const epoch = await connection.getEpochInfo();
  check(epoch.absoluteSlot >= epoch.slotIndex && epoch.slotsInEpoch === 432_000, 'the epoch');
  const { blockhash } = await connection.getLatestBlockhash();
  check((await connection.isBlockhashValid(blockhash)).value, 'the blockhash is valid');
  check((await connection.getRecentPrioritizationFees()).length > 0, 'fees');
  check((await connection.getVersion())['solana-core'].length > 0, 'the version');
  check((await connection.getSlotLeader()).length > 30, 'the leader');
  check((await connection.getFirstAvailableBlock()) <= epoch.absoluteSlot, 'the first block');
  check((await connection.getBlockHeight()) > 0, 'the height');
  check((await connection.getTransactionCount()) > 0, 'transactions');
}

async function first(rpc) {
  const connection = new Connection(rpc, 'confirmed');
  const [payer, other] = [Keypair.generate(), Keypair.generate().publicKey];
  const latest = await connection.getLatestBlockhash();
  const airdrop = await connection.requestAirdrop(payer.publicKey, 10 * SOL);
  await within('the airdrop', connection.confirmTransaction({ signature: airdrop, ...latest }));
  same(await connection.getBalance(payer.publicKey), 10 * SOL, 'the airdrop');
  const signature = await lamports(connection, payer, other);
  await history(connection, payer, other, signature);
  await versioned(connection, payer, other);
  const failed = await failures(connection, payer, other);
  await tokens(connection, payer);
  await chain(connection);
  const genesis = await connection.getGenesisHash();
  const { slot } = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
  return { genesis, signature, failed, slot, payer: payer.publicKey.toBase58(), other: other.toBase58() };
}

async function again(rpc, _, found) {
  const connection = new Connection(rpc, 'confirmed');
  same(await connection.getGenesisHash(), found.genesis, 'the genesis');
  check((await connection.getSlot()) >= found.slot, 'the slot');
  same(await connection.getBalance(new PublicKey(found.other)), 2 * SOL, 'the balance');
  const transaction = await connection.getTransaction(found.signature, { maxSupportedTransactionVersion: 0 });
  same([transaction.slot, transaction.meta.fee], [found.slot, 5000], 'the transaction');
  const failed = await connection.getTransaction(found.failed, { maxSupportedTransactionVersion: 0 });
  same(failed.meta.err, { InstructionError: [0, { Custom: 1 }] }, 'the failed transaction');
  const page = await connection.getSignaturesForAddress(new PublicKey(found.payer));
  check(page.length >= 5 && page.some((one) => one.signature === found.signature), 'the signatures');
  const block = await connection.getBlock(found.slot, { maxSupportedTransactionVersion: 0 });
  check(block.transactions.some((one) => one.transaction.signatures[0] === found.signature), 'the block');
}

await phases(first, again);
