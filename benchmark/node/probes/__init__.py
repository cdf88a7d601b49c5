"""Small probes of the hardware itself: GPUs, CPU, memory and disk, before an engine loads.

Each probe is a module with SCOPE, RATES and a function `measure`; see `interfaces`. Adding one needs no other file.
"""
