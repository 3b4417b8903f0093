//! Embedded SFTP and FTP servers for a folder.
