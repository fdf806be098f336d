"""The only room that imports grpc."""
