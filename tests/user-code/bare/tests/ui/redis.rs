use cb_runtime::Registry;

fn main() {
    let _ = Registry::builder().redis("redis://127.0.0.1").build();
    let _ = Registry::builder().redis_cluster(["redis://127.0.0.1"]).build();
    let _ = Registry::builder().redis_sentinel(["redis://127.0.0.1"], "mymaster").build();
}
