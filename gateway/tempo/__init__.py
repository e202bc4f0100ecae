"""Everything that knows Tempo: its installation, configuration, process and OTLP receiver."""
