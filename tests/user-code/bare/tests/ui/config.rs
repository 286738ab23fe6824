use cb_runtime::RegistryConfig;

fn main() {
    let _ = RegistryConfig::load("breakers.toml");
}
