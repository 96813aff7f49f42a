// Nothing: see torchrun.h.
