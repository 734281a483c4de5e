"""The page: the only part of the package that knows gradio and plotly. One file a panel."""
