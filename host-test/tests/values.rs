//! Values that guest and native share, made on wasm32: `phoenix_values.wasm` in wasmtime says whether they are the golden ones.

use wasmtime::{Engine, Instance, Module, Store};

#[test]
fn values_on_wasm32_are_those_of_the_native_engine() {
    let built = std::env::var_os("PHOENIX_WASM_DIR").map(std::path::PathBuf::from);
    let folder =
        built.unwrap_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/phoenix"));
    let file = folder.join("phoenix_values.wasm");
    assert!(file.exists(), "{} is missing: run `cargo xtask build`", file.display());
    let engine = Engine::default();
    let module = Module::from_file(&engine, &file).expect("a module");
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).expect("a module that imports nothing");
    for name in ["identities", "sketches"] {
        let check = instance.get_typed_func::<(), u32>(&mut store, name).expect("exported");
        assert_eq!(check.call(&mut store, ()).expect("no trap"), 1, "{name} differ on wasm32");
    }
}
