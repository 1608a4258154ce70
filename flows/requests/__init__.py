"""A request's way from received to certified, module by module in the order in which it goes through them.

    intake       received, validated, approved, quarantined: committed to the ledger, checked, put in effect
    quarantine   who is left out of the served model while requests are open, and who may lift that
    coordinator  claims what is open and takes the steps that follow, in order, from where the last try ended
    work         what a step is given, and what it gives back
    ground       before a step trusts the ledger: do locks, list and key still show what it says? People may have moved them
    batch        requests that wait together become one plan; removed: their people are on the list that keeps them out
    retrain      retrained: what they touched ran again without them
    verify       verified: they are gone and nothing else changed; checks, and never repairs
    purge_step   purged: the source, if params say so, and every store are cleared and scanned (`flows/purge` does it)
    certify      certified: what was done is signed and appended to the chain of certificates

Each step is safe to repeat after a crash. A later step trusts only what an earlier one stored in the ledger; one project is
changed by one process at a time (`flows.project.workspace`). Evidence comes before what cannot be undone: nothing is deleted and
nothing is signed until `verify` has passed, nothing is signed until the scan found no residue.
"""
