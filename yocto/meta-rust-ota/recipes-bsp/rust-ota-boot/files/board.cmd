# Settings of the board: boot/u-boot/board.cmd.example of rust-ota lists them. Numbers of partitions stand above.
