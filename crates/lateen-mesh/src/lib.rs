//! The model: from objects to one immutable, indexed Mesh.
