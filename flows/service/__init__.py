"""The service on top: server, worker, and the Prefect flows that move requests on."""
