//! Compiles the protocol with protox, so that no protoc has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 4] = [
    "causeway/v1/operation.proto",
    "causeway/v1/coordinator.proto",
    "causeway/v1/agent.proto",
    "causeway/v1/transfer.proto",
];

/// What is spoken to etcd; not ours, so not in our reflection.
const ETCD: [&str; 2] = ["etcd/kv.proto", "etcd/rpc.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES.iter().chain(&ETCD) {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::Compiler::new(["."])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Reflection serves these bytes to grpcurl and its like.
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).open_files(FILES)?;
    fs::write(out.join("causeway.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".causeway.v1.SeedChunk.payload")
        .bytes(".causeway.v1.LogRecord.payload")
        .bytes(".causeway.v1.Digest.payload")
        .bytes(".causeway.v1.Plan.header")
        .bytes(".causeway.v1.SourcePreflightResponse.requirements")
        .bytes(".causeway.v1.DestPreflightRequest.requirements")
        .compile_fds(descriptors)?;
    let etcd = protox::Compiler::new(["."])?.open_files(ETCD)?.file_descriptor_set();
    tonic_prost_build::configure().build_server(false).compile_fds(etcd)?;
    Ok(())
}
