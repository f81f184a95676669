"""Readers, collate, feature packs and generated clips."""
