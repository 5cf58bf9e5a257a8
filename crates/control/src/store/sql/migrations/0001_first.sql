-- Ids are their text form, keys and digests raw bytes, times milliseconds since the Unix epoch.
-- {bytes} and {serial} stand for the engine's own words.

create table users (
    id text primary key,
    name text not null unique,
    wallet {bytes} not null,
    created bigint not null
);

create table api_keys (
    id text primary key,
    user_id text not null references users (id),
    secret_sha256 {bytes} not null,
    created bigint not null,
    expires bigint,
    revoked bigint
);

create table nonces (
    signer {bytes} not null,
    nonce {bytes} not null,
    forget_at bigint not null,
    primary key (signer, nonce)
);
create index nonces_by_end on nonces (forget_at);

create table jobs (
    id text primary key,
    user_id text not null references users (id),
    cluster text not null unique,
    name text not null,
    spec {bytes} not null,
    spec_signature {bytes} not null,
    order_address {bytes} not null unique,
    order_tx {bytes} not null,
    escrow bigint not null,
    created bigint not null,
    generation bigint not null check (generation > 0),
    state text not null,
    changing text not null,
    event_count bigint not null
);
create index jobs_by_user on jobs (user_id, created);
create index jobs_open on jobs (created) where state not in ('succeeded', 'failed', 'stopped');

create table idempotency_keys (
    user_id text not null,
    key text not null,
    request_sha256 {bytes} not null,
    job text not null references jobs (id) deferrable initially deferred,
    primary key (user_id, key)
);

-- Numbered per job, under the job's row lock: a reader that has seen number n never misses one below it.
create table events (
    job text not null references jobs (id),
    number bigint not null,
    event text not null,
    primary key (job, number)
);

create table workers (
    id text primary key,
    device_key {bytes} not null,
    page {bytes} not null,
    slot bigint not null,
    facts text not null,
    advertise text not null,
    last_seen bigint not null
);

-- One row per device: the primary key alone already forbids that two jobs hold the same one.
create table reservations (
    worker text not null,
    device bigint not null check (device between 0 and 15),
    job text not null references jobs (id),
    until bigint not null,
    primary key (worker, device)
);
create index reservations_by_job on reservations (job);

create table pods (
    id text primary key,
    job text not null references jobs (id),
    worker text not null,
    device_key {bytes} not null,
    lease {bytes} not null,
    page {bytes} not null,
    slot bigint not null,
    mask bigint not null,
    overlay_index bigint not null,
    role text not null,
    fence bigint not null,
    created bigint not null,
    state text not null check (state in ('requested', 'prepared', 'running', 'exited', 'lost')),
    reason text not null,
    statement {bytes},
    exit_code bigint,
    unique (job, overlay_index)
);
create index pods_live on pods (worker) where state not in ('exited', 'lost');

-- Apart from pods because it changes every few seconds and a pod's row does not.
create table meters (
    pod text primary key references pods (id),
    usage_records bigint,
    usage_served_ms bigint,
    usage_signed text,
    observed_ms bigint not null,
    last_seen bigint
);

-- No foreign keys: a command may be about a pod that this store never had.
create table commands (
    number {serial},
    id text not null unique,
    worker text not null,
    pod text not null,
    body {bytes} not null,
    created bigint not null,
    answer text
);
create index commands_open on commands (worker, number) where answer is null;

create table chain_txs (
    number {serial},
    key text not null,
    job text references jobs (id),
    bytes {bytes} not null,
    signature text not null unique,
    last_valid_height bigint not null,
    state text not null check (state in ('pending', 'confirmed', 'failed', 'expired')),
    error text not null,
    created bigint not null
);
create unique index chain_txs_live on chain_txs (key) where state in ('pending', 'confirmed');
create index chain_txs_by_key on chain_txs (key, number);
create index chain_txs_by_job on chain_txs (job, number);

create table epochs (
    number bigint primary key,
    root {bytes} not null,
    leaves text not null,
    created bigint not null
);
create table epoch_leases (
    lease {bytes} not null,
    epoch bigint not null references epochs (number),
    primary key (lease, epoch)
);

create table receipts (
    job text primary key references jobs (id),
    sha256 {bytes} not null,
    receipt text not null
);
