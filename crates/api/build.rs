//! Compiles the link's protobuf without protoc.

fn main() {
    println!("cargo:rerun-if-changed=proto/link.proto");
    let files = protox::compile(["link.proto"], ["proto"]).expect("proto/link.proto is valid");
    // Maps in order: the same message has the same bytes.
    prost_build::Config::new().btree_map(["."]).compile_fds(files).expect("the generated code can be written");
}
