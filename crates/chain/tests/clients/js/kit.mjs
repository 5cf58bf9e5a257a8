// @solana/kit against the local chain, with its own factories for airdrops and for sending and confirming.

import {
  AccountRole,
  address,
  airdropFactory,
  appendTransactionMessageInstruction,
  createSolanaRpc,
  createSolanaRpcSubscriptions,
  createTransactionMessage,
  generateKeyPairSigner,
  getBase64EncodedWireTransaction,
  getSignatureFromTransaction,
  isSolanaError,
  lamports,
  pipe,
  sendAndConfirmTransactionFactory,
  setTransactionMessageFeePayerSigner,
  setTransactionMessageLifetimeUsingBlockhash,
  signTransactionMessageWithSigners,
  SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
} from '@solana/kit';

import { check, phases, same, until, within } from './check.mjs';

const SOL = 1_000_000_000n;
const SYSTEM = address('11111111111111111111111111111111');

function transfer(source, destination, amount) {
  const data = new Uint8Array(12);
  const view = new DataView(data.buffer);
  view.setUint32(0, 2, true);
  view.setBigUint64(4, amount, true);
  const accounts = [
    { address: source.address, role: AccountRole.WRITABLE_SIGNER, signer: source },
    { address: destination, role: AccountRole.WRITABLE },
  ];
  return { programAddress: SYSTEM, accounts, data };
}

async function signed(rpc, payer, instruction) {
  const { value: latest } = await rpc.getLatestBlockhash().send();
  const message = pipe(
    createTransactionMessage({ version: 0 }),
    (message) => setTransactionMessageFeePayerSigner(payer, message),
    (message) => setTransactionMessageLifetimeUsingBlockhash(latest, message),
    (message) => appendTransactionMessageInstruction(instruction, message),
  );
  return await signTransactionMessageWithSigners(message);
}

/** Collects what a subscription tells until it is ended. */
async function listen(pending, end) {
  const heard = [];
  const notifications = await pending.subscribe({ abortSignal: end.signal });
  (async () => {
    for await (const notification of notifications) heard.push(notification);
  })().catch((error) => heard.push({ error }));
  return heard;
}

async function first(url, ws) {
  const rpc = createSolanaRpc(url);
  const rpcSubscriptions = createSolanaRpcSubscriptions(ws);
  const end = new AbortController();
  const payer = await generateKeyPairSigner();
  const other = (await generateKeyPairSigner()).address;
  const airdrop = airdropFactory({ rpc, rpcSubscriptions });
  await within('the airdrop', airdrop({
    commitment: 'confirmed', lamports: lamports(10n * SOL), recipientAddress: payer.address,
  }));

  const accounts = await listen(rpcSubscriptions.accountNotifications(other, { commitment: 'confirmed', encoding: 'base64' }), end);
  const programs = await listen(rpcSubscriptions.programNotifications(SYSTEM, {
    commitment: 'confirmed', encoding: 'base64', filters: [{ dataSize: 0n }],
  }), end);
  const slots = await listen(rpcSubscriptions.slotNotifications(), end);
  const transaction = await signed(rpc, payer, transfer(payer, other, SOL));
  const signature = getSignatureFromTransaction(transaction);
  const signatures = await listen(
    rpcSubscriptions.signatureNotifications(signature, { commitment: 'confirmed', enableReceivedNotification: true }), end,
  );
  const sendAndConfirm = sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });
  await within('the confirmation', sendAndConfirm(transaction, { commitment: 'confirmed' }));
  await until('the account', () => accounts.some((one) => one.value?.lamports === SOL));
  await until('the program', () => programs.some((one) => one.value?.pubkey === other && one.value.account.lamports === SOL));
  await until('the signature', () => signatures.length >= 2);
  same(signatures.map((one) => one.value), ['receivedSignature', { err: null }], 'what the signature told');
  await until('slots', () => slots.length >= 2);
  end.abort();

  const found = await rpc.getTransaction(signature, { encoding: 'json', maxSupportedTransactionVersion: 0 }).send();
  same([found.version, found.meta.err, found.meta.fee], [0, null, 5000n], 'the transaction');
  const bytes = await rpc.getTransaction(signature, { encoding: 'base64', maxSupportedTransactionVersion: 0 }).send();
  same(bytes.transaction[0], getBase64EncodedWireTransaction(transaction), 'the bytes');
  const page = await rpc.getSignaturesForAddress(payer.address, { limit: 10 }).send();
  same([page[0].signature, page.length], [signature, 2], 'the signatures');
  const { value: statuses } = await rpc.getSignatureStatuses([signature]).send();
  same(statuses[0].err, null, 'the status');
  const block = await until('the block', () => rpc.getBlock(found.slot, {
    maxSupportedTransactionVersion: 0, transactionDetails: 'signatures', rewards: false,
  }).send().catch(() => null));
  check(block.signatures.includes(signature), 'the block has the transfer');

  const tooMuch = await signed(rpc, payer, transfer(payer, other, 5000n * SOL));
  const refused = await sendAndConfirm(tooMuch, { commitment: 'confirmed' }).catch((error) => error);
  check(isSolanaError(refused, SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE), `${refused}`);
  check(refused.context.logs.some((line) => line.includes('insufficient lamports')), 'the refusal has its logs');
  const failed = await within('the failure', sendAndConfirm(tooMuch, { commitment: 'confirmed', skipPreflight: true }).catch((error) => error));
  check(failed instanceof Error, 'a failed transaction is an error');
  const tried = await rpc.simulateTransaction(getBase64EncodedWireTransaction(tooMuch), { encoding: 'base64' }).send();
  same(tried.value.err, { InstructionError: [0n, { Custom: 1n }] }, 'the simulation');

  const genesis = await rpc.getGenesisHash().send();
  check((await rpc.getEpochInfo().send()).absoluteSlot >= found.slot, 'the epoch');
  same((await rpc.getMinimumBalanceForRentExemption(0n).send()), 890_880n, 'the rent');
  return { genesis, signature, payer: payer.address, other, slot: `${found.slot}` };
}

async function again(url, _, found) {
  const rpc = createSolanaRpc(url);
  same(await rpc.getGenesisHash().send(), found.genesis, 'the genesis');
  check((await rpc.getSlot().send()) >= BigInt(found.slot), 'the slot');
  same((await rpc.getBalance(address(found.other)).send()).value, SOL, 'the balance');
  const transaction = await rpc.getTransaction(found.signature, { encoding: 'json', maxSupportedTransactionVersion: 0 }).send();
  same([transaction.slot, transaction.meta.err], [found.slot, null], 'the transaction');
  const page = await rpc.getSignaturesForAddress(address(found.payer)).send();
  check(page.some((one) => one.signature === found.signature), 'the signatures');
}

await phases(first, again);
