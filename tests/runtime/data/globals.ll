@ext = addrspace(1) global [4 x i32] [i32 1, i32 2, i32 3, i32 4]
@zero = addrspace(1) global [64 x i32] zeroinitializer
@table = internal addrspace(4) constant [4 x i32] [i32 10, i32 20, i32 30, i32 40]
@pointer = addrspace(1) global ptr addrspace(1) @ext
declare i32 @llvm.amdgcn.workitem.id.x()
define amdgpu_kernel void @gather(ptr addrspace(1) %out) {
  %i = call i32 @llvm.amdgcn.workitem.id.x()
  %p = getelementptr i32, ptr addrspace(1) @ext, i32 %i
  %a = load i32, ptr addrspace(1) %p
  %q = getelementptr i32, ptr addrspace(4) @table, i32 %i
  %b = load i32, ptr addrspace(4) %q
  %z = getelementptr i32, ptr addrspace(1) @zero, i32 %i
  %c = load i32, ptr addrspace(1) %z
  %r = load ptr addrspace(1), ptr addrspace(1) @pointer
  %r2 = getelementptr i32, ptr addrspace(1) %r, i32 %i
  %d = load i32, ptr addrspace(1) %r2
  %s = add i32 %a, %b
  %s2 = add i32 %s, %c
  %s3 = add i32 %s2, %d
  %f = call i32 @helper(i32 %s3)
  %o = getelementptr i32, ptr addrspace(1) %out, i32 %i
  store i32 %f, ptr addrspace(1) %o
  ret void
}
define i32 @helper(i32 %x) noinline {
  %y = mul i32 %x, 3
  ret i32 %y
}
