"""After an erasure no copy of the subjects' records, and nothing derived from them, stays in any store of the project.

What purge deletes is decided in `plan` (from stores) and `leftovers` (outside of them). The modules in the order of the way:

step            the protocol, and the functions that callers use: start here
git_history     facts: which locks and `.dvc` files git knows, from every ref, stash, reflog, index and worktree
lock_history    facts: every version of the pipeline's locks, from git, the working tree and kept copies
lineage         facts: which stage made what of what, and what each store holds
marks           what the records of the erased people are known by, read from the stored parts
search_terms    what a scan must not find; kept on the disk until a scan found none of it
known           what is known of objects since they were read whole, so that they need not be read again
raw_objects     which stored objects hold a record of theirs
plan            what goes, what stays although nobody can tell what it was made of, and who must accept that
journal         what goes, on the disk before anything does; what all purges condemned
delete          the deletes in every store, from a journal
leftovers       the deletes outside of stores: DVC's memory, experiments, plots, copies of the project, old outs, features
prefect_events  the deletes in Prefect's database
places          which stores and folders there are to look into, and what of the project is not looked into
scan            the look into all of them, in a process of its own
report          what a scan found, as the ledger, certificates and people get it
"""
