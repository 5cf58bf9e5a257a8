-- Pods that workers report under leases of orders that no pod of this store serves: another operator's, or this one's
-- own from before its store was lost. Bounded per worker; dropped when their order is closed.
create table strays (
    id text primary key,
    worker text not null,
    device_key {bytes} not null,
    order_address {bytes} not null,
    lease {bytes} not null,
    page {bytes} not null,
    slot bigint not null,
    mask bigint not null,
    fence bigint not null,
    state text not null check (state in ('requested', 'prepared', 'running', 'exited', 'lost')),
    reason text not null,
    statement {bytes},
    exit_code bigint,
    reported bigint not null,
    usage_records bigint,
    usage_served_ms bigint,
    usage_signed text,
    observed_ms bigint not null,
    last_seen bigint
);
create index strays_by_worker on strays (worker, reported);
create index strays_by_order on strays (order_address);
