"""The integrated web- and file-server: browse, preview, download and upload the files of one folder."""

from __future__ import annotations

from connect_trio.agent.files.app import FilesApp, serve_files

__all__ = ["FilesApp", "serve_files"]
