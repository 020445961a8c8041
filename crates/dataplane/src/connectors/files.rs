//! Reads and writes files, on local disks and in object stores.
