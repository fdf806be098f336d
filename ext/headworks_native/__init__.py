"""The native parts of Headworks: wire reader, lanes and their ring, pixels, suppression. See DESIGN.md here."""
