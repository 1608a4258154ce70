"""After a backup was restored: every erasure that is newer than it is done again; and the drill that tries that in a copy.

chain       the chain of certificates, with what git's history and a folder kept elsewhere add; the ledger learns of it
witnesses   everybody who is known to be erased: by lists, ledger and certificates
back        who of them is in the records or in the source again
stores      the purge and the scan where only stores were restored
reapply     `lmeraser reapply`: all of it, in order
copying     a copy of the project for a drill, its backup, and how parts of that are restored
drill       `lmeraser drill`: backup, erasures, restores, and whether anybody came back
"""
