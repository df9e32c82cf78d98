"""System checks: settings that would hurt later are named at the start."""
