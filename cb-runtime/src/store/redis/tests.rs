//! What only the Redis store does, against a real server.
