; y[i] += a * x[i], one work-item an element, workgroups of any one-dimensional size
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare ptr addrspace(4) @llvm.amdgcn.implicitarg.ptr()

define amdgpu_kernel void @saxpy(ptr addrspace(1) %y, ptr addrspace(1) %x, float %a, i32 %n) #0 {
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %hidden = call ptr addrspace(4) @llvm.amdgcn.implicitarg.ptr()
  %size.at = getelementptr i8, ptr addrspace(4) %hidden, i64 12
  %size16 = load i16, ptr addrspace(4) %size.at
  %size = zext i16 %size16 to i32
  %start = mul i32 %group, %size
  %i = add i32 %start, %item
  %inside = icmp ult i32 %i, %n
  br i1 %inside, label %body, label %end
body:
  %x.at = getelementptr float, ptr addrspace(1) %x, i32 %i
  %y.at = getelementptr float, ptr addrspace(1) %y, i32 %i
  %xv = load float, ptr addrspace(1) %x.at
  %yv = load float, ptr addrspace(1) %y.at
  %ax = fmul float %xv, %a
  %sum = fadd float %ax, %yv
  store float %sum, ptr addrspace(1) %y.at
  br label %end
end:
  ret void
}

attributes #0 = { "uniform-work-group-size"="true" }
