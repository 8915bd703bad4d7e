//! The destination agent as its callers see it: over real sockets, with an engine in memory that fails on demand.

mod client;
mod fake;

mod ends;
mod flip;
mod frames;
mod hello;
mod hook;
mod identity;
mod lanes;
mod prepare;
mod restart;
mod seed;
