//! A whole world on one seed: the real control plane and workers over a fake network, chain, disk and clock.
