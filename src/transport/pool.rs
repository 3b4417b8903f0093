//! The pool of connections that a backend owns.
