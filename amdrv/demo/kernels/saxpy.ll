; y[i] = a * x[i] + y[i], one work-item an element, workgroups of 256
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()

define amdgpu_kernel void @saxpy(ptr addrspace(1) %y, ptr addrspace(1) %x, float %a, i32 %n) #0 {
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %first = shl i32 %group, 8
  %i = or disjoint i32 %first, %item
  %inside = icmp ult i32 %i, %n
  br i1 %inside, label %body, label %end

body:
  %x.at = getelementptr float, ptr addrspace(1) %x, i32 %i
  %y.at = getelementptr float, ptr addrspace(1) %y, i32 %i
  %xi = load float, ptr addrspace(1) %x.at
  %yi = load float, ptr addrspace(1) %y.at
  %scaled = fmul float %xi, %a
  %sum = fadd float %scaled, %yi
  store float %sum, ptr addrspace(1) %y.at
  br label %end

end:
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
