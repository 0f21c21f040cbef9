"""A directory as a broker for gotasks: `filesystem:///var/spool/shop`."""

from gotasks_filesystem.broker import FilesystemBroker

__all__ = ["FilesystemBroker"]
