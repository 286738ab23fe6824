::core::compile_error! {
    "unknown argument `nam`; did you mean `name`?"
}
::core::compile_error! {
    "`fallback` needs a value: `fallback = path_or_closure`"
}
::core::compile_error! {
    "0 would never let it act; it must be at least 1"
}
async fn get_user(id: u64) -> Result<User, FetchError> {
    fetch(id).await
}
