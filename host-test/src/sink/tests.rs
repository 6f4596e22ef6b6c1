//! The sink's own arithmetic. TODO
