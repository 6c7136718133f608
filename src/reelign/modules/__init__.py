"""What can be put on top of any online method, one file each: `modules: [{name: bpgo}, {name: vipo}]`."""
