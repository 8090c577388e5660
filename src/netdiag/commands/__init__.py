"""The commands of ``netdiag``, one module a noun. Heavy modules are imported when a command runs, not before."""
