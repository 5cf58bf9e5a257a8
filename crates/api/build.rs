//! Compiles the link's protobuf without protoc.

fn main() {
    println!("cargo:rerun-if-changed=proto/link.proto");
    let files = protox::compile(["link.proto"], ["proto"]).expect("proto/link.proto is valid");
    prost_build::Config::new().compile_fds(files).expect("the generated code can be written");
}
