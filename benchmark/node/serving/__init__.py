"""The parts of the engine `endpoint`: a server's process, and a client of the OpenAI-compatible protocol."""
