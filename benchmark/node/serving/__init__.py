"""What the engine `endpoint` is made of: a server's process, and a client of the OpenAI-compatible protocol."""
