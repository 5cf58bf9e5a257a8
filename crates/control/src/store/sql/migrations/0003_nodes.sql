-- The nodes over this store, and which of them holds which worker's link. A beat is a count, not a time: whoever watches it
-- measures by a clock of its own.
create table nodes (
    id text primary key,
    url text not null,
    beat bigint not null,
    -- Raised whenever the node's links changed.
    changes bigint not null
);

create table links (
    worker text primary key,
    node text not null,
    -- Tells a worker's links apart.
    number bigint not null
);
create index links_by_node on links (node);

-- The network that this store is for; the first one stays.
create table network (
    one bigint primary key check (one = 1),
    genesis_hash {bytes} not null,
    network_root {bytes} not null
);
