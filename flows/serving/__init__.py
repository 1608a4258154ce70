"""The model over HTTP: the Open Inference Protocol and `POST /predict`, with limits, metrics and a log without content."""
