use cb_runtime::RegistryConfig;

fn main() {
    let _ = RegistryConfig::load("breakers.toml");
    let _ = RegistryConfig::from_env();
}
