"""The tests. They mirror the package; tools that several of them share are modules beside this one."""
