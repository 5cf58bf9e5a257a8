-- What is on its way to the chain is few; everything that ever was is many.
create index chain_txs_pending on chain_txs (number) where state = 'pending';
