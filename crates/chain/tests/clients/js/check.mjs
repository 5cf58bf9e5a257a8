// What both JavaScript clients share: a check that ends the script, a deadline for everything, and the last line.

export function check(condition, what) {
  if (!condition) throw new Error(`not as expected: ${what}`);
}

export function same(found, expected, what) {
  const [one, other] = [found, expected].map((value) =>
    JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}` : inner)),
  );
  if (one !== other) throw new Error(`${what}: found ${one}, expected ${other}`);
}

/** Waits for a promise; after 20 s it says what it waited for. */
export async function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited 20 s for ${what}`)), 20_000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks until the answer is one. */
export async function until(what, ask) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`asked 20 s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Runs `first`, or `again` with what `first` found, and prints what the next phase needs. */
export async function phases(first, again) {
  const [, , rpc, ws, found] = process.argv;
  try {
    const result = found === undefined ? await first(rpc, ws) : await again(rpc, ws, JSON.parse(found));
    console.log(JSON.stringify(result ?? {}));
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
